//! 4 KiB at random places of one file, by fio, at depth 1 and 16.

use anyhow::{Context, Result};

use super::Workload;
use crate::input;
use crate::place::Place;
use crate::results::Better;
use crate::size::Size;

pub const WORKLOAD: Workload = Workload {
    name: "random",
    about: "fio: 4 KiB random reads and writes at depth 1 and 16",
    rounds_max: 3,
    is_quick: true,
    prepare: |size| input::random(bytes(size)).map(drop),
    run,
};

fn bytes(size: Size) -> u64 {
    size.of(256 << 20, 64 << 20, 1 << 20)
}

/// One run of fio.
pub struct Job<'a> {
    pub write: bool,
    pub depth: u32,
    pub block: &'a str,
    pub file: &'a str,
    pub bytes: u64,
    pub seconds: u32,
}

/// Runs it; operations per second.
///
/// # Errors
/// What fio said.
pub fn fio(place: &Place<'_>, job: &Job<'_>) -> Result<f64> {
    let which = if job.write { "write" } else { "read" };
    let out = place.sh(&format!(
        "fio --name=job --filename={} --size={} --rw=rand{which} --bs={} --time_based \
         --runtime={} --ioengine=psync --numjobs={} --thread --group_reporting --randrepeat=1 \
         --fallocate=none --invalidate=0 --output-format=json",
        job.file, job.bytes, job.block, job.seconds, job.depth
    ))?;
    // Warnings may stand before it.
    let json = &out[out.find('{').context("fio printed no JSON")?..];
    let json: serde_json::Value = serde_json::from_str(json).context("what fio printed")?;
    json["jobs"][0][which]["iops"].as_f64().context("fio printed no rate")
}

fn run(place: &mut Place<'_>, size: Size) -> Result<()> {
    let bytes = bytes(size);
    place.sh(&format!("cp {} file; sync -d file", input::random(bytes)?.display()))?;
    let seconds = size.of(8, 2, 1);
    for (name, write, depth) in [
        ("random read, depth 1", false, 1),
        ("random read, depth 16", false, 16),
        ("random write, depth 1", true, 1),
        ("random write, depth 16", true, 16),
    ] {
        place.drop_caches()?;
        let job = Job { write, depth, block: "4k", file: "file", bytes, seconds };
        let rate = fio(place, &job)?;
        place.note(name, "1/s", Better::Higher, rate);
    }
    place.sh("rm file")?;
    place.settle()
}
