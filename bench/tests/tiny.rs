//! The benchmarks run, on every contender, and what they write is whole. No time is judged.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use yadokari_tests::process;

/// Workloads and contenders that together touch all of the code but what takes minutes;
/// ceph-fuse is for `make bench` alone.
const WORKLOADS: [&str; 6] = ["tree", "git", "large", "sizes", "random", "commit"];
const CONTENDERS: &str = "ext4,tmpfs,floor,floor-node,ours-file,ours-rados,ours-file-node";

#[test]
fn a_tiny_run_measures_every_workload_on_every_contender_and_draws_its_charts() -> Result<()> {
    let out = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_yadokari-bench"));
    command.args(["run", "--tiny", "--contenders", CONTENDERS, "--out"]).arg(out.path());
    command.args(WORKLOADS).arg("meta");
    let said = process::ok(&mut command)?;
    ensure!(said.contains("| figure | of | against |"), "no table of figures:\n{said}");
    let text = std::fs::read_to_string(out.path().join("results.json"))?;
    let results: Value = serde_json::from_str(&text)?;
    ensure!(results["absent"].as_array().is_some_and(Vec::is_empty), "{}", results["absent"]);
    let samples = results["samples"].as_array().context("samples")?;
    for workload in WORKLOADS {
        for contender in CONTENDERS.split(',') {
            let found = samples
                .iter()
                .any(|sample| sample["workload"] == workload && sample["contender"] == contender);
            ensure!(found, "nothing of {workload} on {contender}");
        }
    }
    for sample in samples {
        let value = sample["value"].as_f64().context("a value")?;
        ensure!(value.is_finite() && value >= 0.0 && sample["stopped"] == false, "{sample}");
    }
    for chart in ["real-work", "sizes-write", "sizes-random-read", "sizes-random-write"] {
        is_a_picture(&out.path().join(format!("{chart}.png")), b"\x89PNG")?;
        is_a_picture(&out.path().join(format!("{chart}.svg")), b"<svg")?;
    }
    Ok(())
}

fn is_a_picture(path: &Path, beginning: &[u8]) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
    ensure!(bytes.starts_with(beginning) && bytes.len() > 1000, "{} is empty", path.display());
    Ok(())
}
