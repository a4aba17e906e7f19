//! The running state of a plan: counts, the seeded generator, the crash flag, the gate of hangs.

use super::plan::{Action, FaultPlan, OpKind};
use object_store::path::Path;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// How many operations of each kind were seen, and what faults were met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    seen: [u64; OpKind::ALL.len()],
    /// Operations that met a fault, including those refused after a crash.
    pub faulted: u64,
}

impl Counters {
    pub fn of(&self, kind: OpKind) -> u64 {
        self.seen[kind.index()]
    }

    /// Operations that would have changed the store; the numbers of `crash_at_write`.
    pub fn writes(&self) -> u64 {
        OpKind::WRITES.iter().map(|kind| self.of(*kind)).sum()
    }

    pub fn total(&self) -> u64 {
        self.seen.iter().sum()
    }
}

/// The handle of a test on one or more [`super::FaultStore`]s that share one plan.
#[derive(Debug, Clone)]
pub struct FaultControl {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Counts releases; a hanging operation waits for the number to change.
    gate: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    plan: FaultPlan,
    /// Per rule of the plan: matching operations seen, and times acted.
    progress: Vec<(u64, u64)>,
    random: u64,
    crashed: bool,
    counters: Counters,
    hanging: u64,
}

/// What one operation is to do.
#[derive(Debug)]
pub(super) enum Verdict {
    Pass,
    Dead,
    Act(Action),
}

impl FaultControl {
    pub fn new(plan: FaultPlan) -> Self {
        let state = State {
            progress: vec![(0, 0); plan.faults.len()],
            random: plan.seed,
            plan,
            crashed: false,
            counters: Counters::default(),
            hanging: 0,
        };
        let inner = Inner { state: Mutex::new(state), gate: watch::Sender::new(0) };
        FaultControl { inner: Arc::new(inner) }
    }

    /// Replaces the plan; its rules count from here. Counters and the crash flag stay.
    pub fn arm(&self, plan: FaultPlan) {
        let mut state = self.inner.state.lock();
        state.progress = vec![(0, 0); plan.faults.len()];
        state.random = plan.seed;
        state.plan = plan;
    }

    /// Drops all rules and lets hanging operations go on.
    pub fn disarm(&self) {
        self.arm(FaultPlan::none());
        self.release();
    }

    /// Lets every operation that hangs now go on.
    pub fn release(&self) {
        self.inner.gate.send_modify(|releases| *releases += 1);
    }

    /// As if the process on this side were killed now; operations in flight go on.
    pub fn crash(&self) {
        self.inner.state.lock().crashed = true;
    }

    /// Ends a crash: the next "process" begins, with no plan.
    pub fn revive(&self) {
        self.disarm();
        self.inner.state.lock().crashed = false;
    }

    pub fn crashed(&self) -> bool {
        self.inner.state.lock().crashed
    }

    pub fn counters(&self) -> Counters {
        self.inner.state.lock().counters
    }

    pub fn reset_counters(&self) {
        self.inner.state.lock().counters = Counters::default();
    }

    /// Operations that hang at this moment.
    pub fn hanging(&self) -> u64 {
        self.inner.state.lock().hanging
    }

    pub(super) fn judge(&self, kind: OpKind, path: &Path) -> Verdict {
        let mut state = self.inner.state.lock();
        let state = &mut *state;
        state.counters.seen[kind.index()] += 1;
        if state.crashed {
            state.counters.faulted += 1;
            return Verdict::Dead;
        }
        for (fault, (seen, acted)) in state.plan.faults.iter().zip(&mut state.progress) {
            if !fault.matches(kind, path) {
                continue;
            }
            *seen += 1;
            if *seen <= fault.skip || *acted >= fault.times {
                continue;
            }
            if fault.probability < 1.0 && next_unit(&mut state.random) >= fault.probability {
                continue;
            }
            *acted += 1;
            state.counters.faulted += 1;
            if let Action::Crash(_) = fault.action {
                state.crashed = true;
            }
            return Verdict::Act(fault.action.clone());
        }
        Verdict::Pass
    }

    pub(super) async fn hang(&self) {
        let mut gate = self.inner.gate.subscribe();
        let now = *gate.borrow_and_update();
        let _counted = Hanging::begin(&self.inner);
        // The sender lives in self, so the wait can only end by a release.
        let _released = gate.wait_for(|releases| *releases != now).await.is_ok();
    }
}

/// Counts an operation as hanging until it goes on or its future is dropped.
struct Hanging<'a>(&'a Inner);

impl<'a> Hanging<'a> {
    fn begin(inner: &'a Inner) -> Self {
        inner.state.lock().hanging += 1;
        Hanging(inner)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.state.lock().hanging -= 1;
    }
}

/// SplitMix64, as a fraction in [0, 1): small, seedable, and the same for ever.
fn next_unit(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
