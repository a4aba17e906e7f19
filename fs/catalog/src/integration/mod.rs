//! What must hold of a catalogue, on any store: for its own tests, and for those of packages
//! that have other stores.
//!
//! [`churn`] lets several instances do everything at once under faults and then recounts.
//! [`stall_everywhere`] stops a collection at each of its operations while others push, mount
//! and ask for what it condemned, and stops those while it collects. Time and chance come from
//! the seed, as far as the store's own timing allows; a failure names it.

mod churn;
mod seams;
mod stalls;
mod world;

pub use churn::{Churn, churn};
pub use seams::{ManualClock, SeededRandomness};
pub use stalls::stall_everywhere;
pub use world::{Instance, World};

#[cfg(test)]
mod tests;
