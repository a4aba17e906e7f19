//! What was measured, as a table; and the figures that the gateway is to reach.

use std::fmt::Write;

use super::contender::NAMES;
use crate::results::{Cell, Results, Table};
use crate::table::number;

/// Figures that are ratios: workload, metric, against whom, and at least how many times as good.
const RATIOS: [(&str, &str, &str, f64); 8] = [
    ("blobs", "push of 1 GiB", "zot-commit", 1.0),
    ("blobs", "push of 30 layers", "zot-commit", 1.0),
    ("blobs", "pull of 1 GiB", "zot", 1.0),
    ("blobs", "pull of 30 layers", "zot", 1.0),
    ("manifests", "GET by tag", "zot", 1.5),
    ("manifests", "GET by digest", "zot", 1.5),
    ("manifests", "HEAD by tag", "zot", 1.5),
    ("manifests", "HEAD by digest", "zot", 1.5),
];
/// Figures that are values, at most so much.
const VALUES: [(&str, &str, f64); 5] = [
    ("tags", "a page of 1000 tags of 10,000", 50.0),
    ("catalog", "a page of 100 of 5,000 for who sees all", 20.0),
    ("catalog", "a page of 100 of 5,000 for who sees three", 20.0),
    ("memory", "memory with 32 pushes at once", 128.0),
    ("memory", "memory with 32 pulls at once", 128.0),
];
/// A push while collection runs takes at most so many times as long.
const COLLECT_MAX: f64 = 2.0;
/// Whose figures they are: one gateway on the embedded store.
const OURS: &str = "ours-file";

/// The whole report.
pub fn render(results: &Results) -> String {
    let mut out = String::new();
    let s = &results.setting;
    let (cores, memory) = (s.cores, s.memory_mib / 1024);
    line(&mut out, format_args!("Commit {}, {} run, {} rounds.", s.commit, s.size, s.rounds));
    line(
        &mut out,
        format_args!(
            "Machine: {cores} x {}, {memory} GiB, disk {}; {}; client and registry share it.",
            s.cpu, s.disk, s.kernel
        ),
    );
    for absent in &results.absent {
        line(&mut out, format_args!("Not measured: {absent}."));
    }
    let table = results.table();
    measured(&mut out, results, &table);
    figures(&mut out, &table);
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _never_fails = writeln!(out, "{text}");
}

fn measured(out: &mut String, results: &Results, table: &Table) {
    let has = |name: &str| results.samples.iter().any(|sample| sample.contender == name);
    let names: Vec<&str> = NAMES.into_iter().filter(|name| has(name)).collect();
    line(out, format_args!("\nMedian (least to most).\n"));
    line(out, format_args!("| workload | {} |", names.join(" | ")));
    line(out, format_args!("|---|{}", "---|".repeat(names.len())));
    for key in results.order() {
        let Some(row) = table.get(&key) else { continue };
        if key.0 == "store" {
            continue;
        }
        let unit = row.values().next().map_or("", |cell| cell.unit);
        let cells: Vec<String> =
            names.iter().map(|name| row.get(*name).map(show).unwrap_or_default()).collect();
        line(out, format_args!("| {}: {} ({unit}) | {} |", key.0, key.1, cells.join(" | ")));
    }
    for ((_, metric), row) in table.iter().filter(|((workload, _), _)| *workload == "store") {
        for cell in row.values() {
            line(out, format_args!("\n{metric}: {} {}.", number(cell.median), cell.unit));
        }
    }
}

fn show(cell: &Cell) -> String {
    let text = number(cell.median);
    match cell.most > cell.least {
        true => format!("{text} ({}-{})", number(cell.least), number(cell.most)),
        false => text,
    }
}

fn figures(out: &mut String, table: &Table) {
    line(out, format_args!("\n| figure of {OURS} | against | wanted | is | |"));
    line(out, format_args!("|---|---|---|---|---|"));
    let cell = |workload: &'static str, metric: &str, who: &str| {
        table.get(&(workload, metric.to_owned()))?.get(who)
    };
    for (workload, metric, against, least) in RATIOS {
        let Some(ours) = cell(workload, metric, OURS) else { continue };
        // Where zot is not there, distribution shows at least where the machine stands.
        let other = cell(workload, metric, against).map(|other| (against, other));
        let other =
            other.or_else(|| cell(workload, metric, "distribution").map(|o| ("distribution", o)));
        let Some((against, other)) = other else { continue };
        let ratio = 1.0 / ours.ratio_to(other);
        let reached = verdict(ratio >= least);
        line(
            out,
            format_args!(
                "| {workload}: {metric} | {against} | at least {least:.1} times as good \
                 | {ratio:.2} | {reached} |"
            ),
        );
    }
    for (workload, metric, most) in VALUES {
        let Some(ours) = cell(workload, metric, OURS) else { continue };
        let reached = verdict(ours.median <= most);
        let (value, unit) = (number(ours.median), ours.unit);
        line(
            out,
            format_args!("| {workload}: {metric} | | {most:.0} {unit} | {value} | {reached} |"),
        );
    }
    let p99 = |how: &str| cell("collect", &format!("an image pushed {how}, p99"), OURS);
    if let (Some(usual), Some(collecting)) = (p99("as usual"), p99("while it collects")) {
        let ratio = collecting.median / usual.median;
        let reached = verdict(ratio <= COLLECT_MAX);
        line(
            out,
            format_args!(
                "| collect: p99 of a push | as usual | {COLLECT_MAX:.1} times | {ratio:.2} \
                 | {reached} |"
            ),
        );
    }
}

fn verdict(reached: bool) -> &'static str {
    if reached { "yes" } else { "**no**" }
}
