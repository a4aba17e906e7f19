//! Who may write a home: an owner record per home, and one heartbeat per process behind it.
//!
//! What always holds: a home has at most one owner that others believe alive. The record of a
//! home (`homes/NAME/owner`) names its owner and an epoch that grows with every claim; it changes
//! by compare-and-swap only. That the owner lives, its heartbeat says: an object of its process
//! (`nodes/NODE/INCARNATION`) that it changes every few seconds, for all its homes at once.
//!
//! No two clocks are ever compared. A claimer takes an owner for dead when it has watched the
//! heartbeat not change for [`LeaseTiming::ttl`] by its own clock. An owner takes itself for
//! alive until `ttl - margin` after it *began* its last successful renewal, by its own clock,
//! which also counts time that the machine slept. So an owner stops earlier than anybody takes
//! over, as long as two clocks run apart by less than the margin. An owner whose lease lapsed
//! swaps each of its records once more before it goes on ([`Claim::still_valid`]); that swap
//! fails for whichever home was taken over meanwhile, and spoils a takeover that is under way.
//!
//! Left to others: keeping a paused owner's late writes away from the data. That is the fencing
//! of the tables, which needs no clock at all; what is here decides who may try.

mod claim;
mod error;
mod heartbeat;
mod identity;
mod judge;
mod lease;
mod monotonic;
mod record;
mod watch;

#[cfg(test)]
pub(in crate::home) mod tests;

pub use claim::{Claim, Lost, claim};
pub use error::ClaimError;
pub use heartbeat::{Heartbeat, HeartbeatOptions};
pub use identity::{Incarnation, NodeIdentity, ProcessProbe, ProcessState, SystemProcesses};
pub use lease::LeaseTiming;
pub use monotonic::{BootClock, Monotonic};
pub use record::Owner;

pub(super) use record::find_owner;
