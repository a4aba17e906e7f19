//! What a database does at every commit: append 4 KiB, fsync.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Instant;

use anyhow::Result;

use super::{Workload, nothing};
use crate::place::Place;
use crate::results::Better;
use crate::size::Size;

pub const WORKLOAD: Workload = Workload {
    name: "commit",
    about: "append 4 KiB and fsync, one after the other",
    rounds_max: usize::MAX,
    is_quick: true,
    prepare: nothing,
    run,
};

fn run(place: &mut Place<'_>, size: Size) -> Result<()> {
    let path = place.user.home.join("log");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let mut block = [0u8; 4096];
    let mut took: Vec<f64> = Vec::new();
    for n in 0..size.of(1000, 300, 10) {
        rand::fill(&mut block);
        let from = Instant::now();
        file.write_all(&block)?;
        file.sync_all()?;
        // The first ones find caches empty and files to be made.
        if n >= 5 {
            took.push(from.elapsed().as_secs_f64() * 1e3);
        }
    }
    took.sort_by(f64::total_cmp);
    place.note("append and fsync, median", "ms", Better::Lower, took[took.len() / 2]);
    place.note("append and fsync, p99", "ms", Better::Lower, took[took.len() * 99 / 100]);
    drop(file);
    std::fs::remove_file(path)?;
    place.settle()
}
