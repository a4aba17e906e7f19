//! What is measured. Each workload takes a user's home on a contender and leaves it as it was.

mod cargo;
mod commit;
mod containers;
mod git;
mod large;
mod meta;
mod million;
mod python;
mod random;
mod sizes;
mod tree;

use anyhow::Result;

pub use sizes::{SIZES, size_label};

use crate::place::Place;
use crate::size::Size;

/// One workload.
#[derive(Clone, Copy)]
pub struct Workload {
    /// Its command.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Fewer rounds than others in a full run, for what takes minutes.
    pub rounds_max: usize,
    /// Part of the run for every day.
    pub is_quick: bool,
    /// Makes what it works on, before anything is measured.
    pub prepare: fn(Size) -> Result<()>,
    /// Measures.
    pub run: fn(&mut Place<'_>, Size) -> Result<()>,
}

/// All of them, in the order of tables.
pub const ALL: [Workload; 11] = [
    tree::WORKLOAD,
    git::WORKLOAD,
    python::WORKLOAD,
    cargo::WORKLOAD,
    large::WORKLOAD,
    sizes::WORKLOAD,
    random::WORKLOAD,
    commit::WORKLOAD,
    meta::WORKLOAD,
    containers::WORKLOAD,
    million::WORKLOAD,
];

/// One by its name.
pub fn by_name(name: &str) -> Option<Workload> {
    ALL.into_iter().find(|workload| workload.name == name)
}

/// For workloads that need nothing.
fn nothing(_: Size) -> Result<()> {
    Ok(())
}
