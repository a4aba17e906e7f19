//! Logs: state that is a run of changes, in a head and, when it grows, in snapshots beside it.
//!
//! A repository, a ledger and the directory are states of this kind. A change reads the state,
//! decides on operations, and appends them to the head by compare-and-swap; so changes of one
//! log have one order, and each sees everything before it. When the head has grown, the state is
//! written once as a snapshot of its own, and the head begins anew behind it. `format` draws
//! both.
//!
//! What always holds: operations are applied in the order of their commit number, by everybody,
//! with the same outcome, so that the state at a number is the same wherever it is reckoned.
//! Changes that wait for each other in one process are written in one swap. A swap whose answer
//! was lost is recognised by the commit's id and never done twice. Decisions may be made several
//! times, on ever newer states, and must come out the same when their own effect is in the state
//! already. Nobody hears of a decision that a newer state might have made otherwise.

mod commit;
mod format;
mod heads;
mod slot;

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use commit::Writer;
pub(crate) use heads::Heads;
pub(crate) use slot::{SNAPSHOTS, Slot, snapshot_base, snapshot_owner};

/// What a log's operations do.
pub(crate) trait State: Default + Clone + Debug + Send + Sync + 'static {
    /// One change. JSON; readers ignore fields that they do not know, not operations.
    type Op: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static;

    /// Makes a change. It was decided on this very state, or is part of a snapshot.
    fn apply(&mut self, op: &Self::Op);

    /// Operations that make this state from an empty one.
    fn snapshot(&self) -> Vec<Self::Op>;

    /// About how much memory it takes.
    fn weight(&self) -> usize;
}

/// What a decision is told beside the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// The number of the state that it sees.
    pub(crate) seq: u64,
}

/// What a decision comes to: operations, and an answer for who asked.
#[derive(Debug)]
pub(crate) struct Decided<O, T> {
    pub(crate) ops: Vec<O>,
    pub(crate) answer: T,
}

/// An answer, and the number of a state in which it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed<T> {
    pub(crate) answer: T,
    pub(crate) seq: u64,
}
