//! A home with very many files: how long it takes to start with it, and to find one file in it.

use anyhow::Result;

use super::{Workload, nothing};
use crate::place::Place;
use crate::size::Size;

pub const WORKLOAD: Workload = Workload {
    name: "million",
    about: "start with a home of one million files",
    rounds_max: 1,
    is_quick: false,
    prepare: nothing,
    run,
};

fn run(place: &mut Place<'_>, size: Size) -> Result<()> {
    let dirs = size.of(1000, 100, 2);
    let make = format!(
        r#"/usr/bin/python3 -c '
import os
for d in range({dirs}):
    os.makedirs("many/%d/%d" % (d % 32, d))
    for f in range(1000):
        os.close(os.open("many/%d/%d/f%d" % (d % 32, d, f), os.O_CREAT | os.O_WRONLY))'"#
    );
    place.time("a million files made", &make)?;
    place.settle()?;
    let from = std::time::Instant::now();
    place.contender.restart()?;
    place.sh("stat many/1/1/f7 > /dev/null")?;
    let better = crate::results::Better::Lower;
    place.note("start and first file", "s", better, from.elapsed().as_secs_f64());
    place.time("find of a million", "find many -type f | wc -l > /dev/null")?;
    place.sh("rm -rf many")?;
    place.settle()
}
