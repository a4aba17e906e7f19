//! Faults as data: a wrapper that fails, delays, truncates, hangs or "crashes" at a chosen point.
//!
//! A [`FaultPlan`] is plain data: rules that say which operations (by kind, object prefix, count,
//! probability) meet which [`Action`], and a seed. The same plan over the same sequence of
//! operations does the same thing: there is no wall clock and no global randomness in here (a
//! delay sleeps on the runtime's clock, which tests pause). Plans can be replaced at run time,
//! and the wrapper counts the operations it sees, so that a test can first count a run's
//! operations and then crash at each of them.
//!
//! A *crash* is that of the process on this side of the store: the chosen operation happens not
//! at all, or happens but nobody hears of it, or half; and from then on every operation fails
//! without reaching the store, until `revive`.

mod plan;
mod state;
mod store;

pub use plan::{Action, Crash, Fault, FaultPlan, OpKind};
pub use state::{Counters, FaultControl};
pub use store::FaultStore;
