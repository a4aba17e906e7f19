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

fn run_here(left: &Path, right: &Path, seed: u64, operations: usize) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut sides = (Side::open(left)?, Side::open(right)?);
    let mut succeeded = 0;
    for first in (0..operations).step_by(ROUND) {
        let round: Vec<_> = (0..ROUND.min(operations - first))
            .map(|index| op::first(index).unwrap_or_else(|| op::random(&mut random)))
            .collect();
        sides.0.empty(left)?;
        sides.1.empty(right)?;
        let done = run_round(&mut sides, first, &round);
        match done.and_then(|done| same_trees(left, right).map(|()| done)) {
            Ok(done) => succeeded += done,
            Err(differ) => {
                // Which operation it was shows when trees are compared after each.
                sides.0.empty(left)?;
                sides.1.empty(right)?;
                run_closely(&mut sides, (left, right), first, &round)?;
                let last = first + round.len() - 1;
                return Err(differ.context(format!("only once, up to operation {last}")));
            }
        }
    }
    eprintln!("{succeeded} of {operations} operations succeeded, the rest failed alike");
    ensure!(succeeded >= operations / SUCCESS_SHARE_MIN, "too many failed to prove anything");
    Ok(())
}

/// Executes a round on both sides; says how many operations succeeded.
fn run_round(sides: &mut (Side, Side), first: usize, round: &[Op]) -> Result<usize> {
    let mut succeeded = 0;
    for (index, op) in round.iter().enumerate() {
        let (left, right) = (sides.0.execute(op), sides.1.execute(op));
        if left != right {
            let at = first + index;
            let before = before(first, &round[..=index]);
            bail!("operation {at} differs\n  left:  {left:?}\n  right: {right:?}\nafter\n{before}");
        }
        succeeded += usize::from(left.is_ok());
    }
    Ok(succeeded)
}

/// A round again, with the trees compared after each operation.
fn run_closely(
    sides: &mut (Side, Side),
    (left, right): (&Path, &Path),
    first: usize,
    round: &[Op],
) -> Result<()> {
    for index in 0..round.len() {
        run_round(sides, first + index, &round[index..=index])?;
        same_trees(left, right)
            .with_context(|| format!("after\n{}", before(first, &round[..=index])))?;
    }
    Ok(())
}

/// The last operations of those given, the first of which has the number `first`.
fn before(first: usize, round: &[Op]) -> String {
    let shown = round.iter().enumerate().skip(round.len().saturating_sub(SHOWN));
    shown.map(|(index, op)| format!("  {}: {op:?}\n", first + index)).collect()
}
