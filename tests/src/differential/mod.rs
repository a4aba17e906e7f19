//! The same random operations on two directories: same errno, same results, same trees.
//!
//! POSIX is the judge, in the person of a local file system. Everything comes from one seed,
//! which is printed; `YADOKARI_TEST_SEED` replays it and `YADOKARI_TEST_OPS` sets how many
//! operations run. What file systems may do differently is not compared: sizes of directories,
//! block counts, the order of listings, times that the clock set, and where exactly the holes
//! lie (but what a seek skips must read as zeros).

mod op;
mod side;
mod sys;

use std::collections::VecDeque;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use op::Op;
pub use side::Side;

use crate::tree;

/// The seed of the usual run.
const USUAL_SEED: u64 = 20_261_121;

/// After so many operations whole trees are compared, and it starts again on empty ones: left to
/// itself the disorder grows until nearly everything fails.
const ROUND: usize = 500;
/// The long run is so much longer.
const LONG_FACTOR: usize = 20;
/// One in so many must succeed, or the run went nowhere.
const SUCCESS_SHARE_MIN: usize = 5;
/// So many operations before a difference are shown.
const SHOWN: usize = 25;

/// Seed and number of operations, from the environment where it says so.
#[must_use]
pub fn plan(operations: usize) -> (u64, usize) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    // One seed in the usual run, so that a red run is news of this change; new ones in the long.
    let fresh = || if crate::is_long() { rand::rng().random() } else { USUAL_SEED };
    let seed = number("YADOKARI_TEST_SEED").unwrap_or_else(fresh);
    let planned = number("YADOKARI_TEST_OPS").and_then(|n| usize::try_from(n).ok());
    (seed, planned.unwrap_or(if crate::is_long() { operations * LONG_FACTOR } else { operations }))
}

/// Runs `operations` from `seed` on both directories, which must be empty and equal.
///
/// # Errors
/// At the first difference, with the operations before it and how to replay.
pub fn run(left: &Path, right: &Path, seed: u64, operations: usize) -> Result<()> {
    eprintln!("differential run: YADOKARI_TEST_SEED={seed} YADOKARI_TEST_OPS={operations}");
    // Umask and credentials change per operation; on a thread of its own they are nobody else's.
    let (left, right) = (left.to_owned(), right.to_owned());
    std::thread::spawn(move || {
        sys::own_umask()?;
        run_here(&left, &right, seed, operations)
            .with_context(|| format!("replay with YADOKARI_TEST_SEED={seed}"))
    })
    .join()
    .unwrap_or_else(|_| bail!("the run panicked; YADOKARI_TEST_SEED={seed}"))
}

/// Both trees, compared as they stand.
///
/// # Errors
/// When they differ.
pub fn same_trees(left: &Path, right: &Path) -> Result<()> {
    let options = tree::Options { times: false, xattrs: true };
    let read = |dir| {
        tree::read(dir, options).map(|mut tree| {
            for node in tree.values_mut() {
                node.mode = comparable_mode(node.mode);
                // Whether a whiteout inherits an ACL differs between local file systems.
                if node.mode & libc::S_IFMT == libc::S_IFCHR {
                    node.xattrs.clear();
                }
            }
            tree
        })
    };
    tree::same("trees", &read(left)?, &read(right)?)
}

/// Set-gid without group-execute on a file means nothing any more (once: mandatory locking). A
/// local file system drops it when somebody outside of the group writes; the kernel tells a FUSE
/// file system of set-gid only where group-execute is set.
fn comparable_mode(mode: u32) -> u32 {
    let file = mode & libc::S_IFMT == libc::S_IFREG;
    let meaningless = file && mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID;
    if meaningless { mode & !libc::S_ISGID } else { mode }
}

fn run_here(left: &Path, right: &Path, seed: u64, operations: usize) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut sides = (Side::open(left)?, Side::open(right)?);
    let mut recent = VecDeque::new();
    let mut succeeded = 0;
    for index in 0..operations {
        let round = index % ROUND;
        if round == 0 {
            sides.0.empty(left)?;
            sides.1.empty(right)?;
        }
        let op = op::first(round).unwrap_or_else(|| op::random(&mut random));
        recent.push_back(format!("{index}: {op:?}"));
        if recent.len() > SHOWN {
            recent.pop_front();
        }
        let before = || recent.iter().map(|op| format!("  {op}\n")).collect::<String>();
        let outcomes = (sides.0.execute(&op), sides.1.execute(&op));
        if outcomes.0 != outcomes.1 {
            let (l, r) = outcomes;
            bail!("operation {index} differs\n  left:  {l:?}\n  right: {r:?}\nafter\n{}", before());
        }
        succeeded += usize::from(outcomes.0.is_ok());
        if round == ROUND - 1 {
            same_trees(left, right).with_context(|| format!("after\n{}", before()))?;
        }
    }
    eprintln!("{succeeded} of {operations} operations succeeded, the rest failed alike");
    ensure!(succeeded >= operations / SUCCESS_SHARE_MIN, "too many failed to prove anything");
    same_trees(left, right)
}
