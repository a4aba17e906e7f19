//! Results as text: a table for people, in Markdown.

use std::fmt::Write;

use crate::contender::NAMES;
use crate::results::{Cell, Results};
use crate::targets::{self, RSS_MIB_MAX};

/// The whole report.
pub fn render(results: &Results) -> String {
    let mut out = String::new();
    setting(&mut out, results);
    measured(&mut out, results);
    figures(&mut out, results);
    daemons(&mut out, results);
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _never_fails = writeln!(out, "{text}");
}

fn setting(out: &mut String, results: &Results) {
    let s = &results.setting;
    line(out, format_args!("Commit {}, {} run, up to {} rounds.", s.commit, s.size, s.rounds));
    let (cores, cpu, memory) = (s.cores, &s.cpu, s.memory_mib / 1024);
    line(
        out,
        format_args!("Machine: {cores} x {cpu}, {memory} GiB, disk {}; {}.", s.disk, s.kernel),
    );
    for absent in &results.absent {
        line(out, format_args!("Not measured: {absent}."));
    }
}

/// Contenders of the run, in the order of tables, then others.
pub fn contenders(results: &Results) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let known = NAMES.iter().map(|name| (*name).to_owned());
    let others = results.samples.iter().map(|sample| sample.contender.clone());
    let measured = |name: &String| results.samples.iter().any(|s| s.contender == *name);
    for name in known.chain(others) {
        if measured(&name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn measured(out: &mut String, results: &Results) {
    let (table, names) = (results.table(), contenders(results));
    line(out, format_args!("\nMedian (least to most); in brackets times the floor.\n"));
    line(out, format_args!("| workload | {} |", names.join(" | ")));
    line(out, format_args!("|---|{}", "---|".repeat(names.len())));
    for key in results.order() {
        let Some(row) = table.get(&key) else { continue };
        let floor = row.get("floor");
        let unit = row.values().next().map_or("", |cell| cell.unit);
        let cells = names.iter().map(|name| match row.get(name) {
            Some(cell) => show(cell, floor.filter(|_| name != "floor")),
            None => String::new(),
        });
        let cells: Vec<String> = cells.collect();
        line(out, format_args!("| {}: {} ({unit}) | {} |", key.0, key.1, cells.join(" | ")));
    }
}

fn show(cell: &Cell, floor: Option<&Cell>) -> String {
    let mut text = number(cell.median);
    if cell.stopped {
        return format!("> {text} (stopped)");
    }
    if cell.most > cell.least {
        let _never_fails = write!(text, " ({}-{})", number(cell.least), number(cell.most));
    }
    if let Some(floor) = floor {
        let _never_fails = write!(text, " [{:.2}]", cell.ratio_to(floor));
    }
    text
}

/// With three digits.
pub fn number(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        1.0..10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A ratio, so that small ones can be told apart.
fn times(ratio: f64) -> String {
    if ratio < 0.1 { format!("{ratio:.3}") } else { format!("{ratio:.2}") }
}

fn figures(out: &mut String, results: &Results) {
    line(out, format_args!("\n| figure | of | against | at most | is | |"));
    line(out, format_args!("|---|---|---|---|---|---|"));
    for verdict in targets::judge(&results.table()) {
        let t = &verdict.target;
        let (against, ratio) = match &verdict.ratio {
            Some((name, ratio)) => (name.clone(), times(*ratio)),
            None => (t.against.join(", "), "not measured".to_owned()),
        };
        let against = if t.metrics == t.theirs {
            against
        } else {
            format!("{against}: {}", t.theirs.join(" and "))
        };
        let reached = verdict.is_reached().map_or("", |yes| if yes { "yes" } else { "**no**" });
        let (w, m, c) = (t.workload, t.metrics.join(" and "), t.contender);
        let max = times(t.ratio_max);
        line(out, format_args!("| {w}: {m} | {c} | {against} | {max} | {ratio} | {reached} |"));
    }
}

fn daemons(out: &mut String, results: &Results) {
    line(out, format_args!("\n| daemon | most resident memory (MiB) | seconds of CPU, untar |"));
    line(out, format_args!("|---|---|---|"));
    let table = results.table();
    for name in contenders(results) {
        let cells = table.values().filter_map(|row| row.get(&name));
        let most = cells.map(|cell| cell.rss_mib).fold(0.0, f64::max);
        if most == 0.0 {
            continue;
        }
        let untar = table.get(&("tree", "untar".to_owned())).and_then(|row| row.get(&name));
        let cpu = untar.map_or(String::new(), |cell| format!("{:.2}", cell.cpu_s));
        let over =
            if name.starts_with("ours") && most > RSS_MIB_MAX { " **too much**" } else { "" };
        line(out, format_args!("| {name} | {most:.0}{over} | {cpu} |"));
    }
}
