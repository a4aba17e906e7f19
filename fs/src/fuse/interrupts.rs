//! Signals for threads that wait for other users' locks.
//!
//! The kernel says INTERRUPT with the number of the request that a signal came for. It does so only
//! after that request was read, but with several threads it may be served before it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::view::Interrupted;

/// Interrupts that came before what they interrupt. Most of them are for requests that nothing
/// can interrupt, or that were answered meanwhile.
const EARLY_MAX: usize = 256;

/// The requests of one mount that can be interrupted.
#[derive(Debug, Default)]
pub struct Interrupts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<u64, oneshot::Sender<()>>,
    early: VecDeque<u64>,
}

impl Interrupts {
    /// Lets the request that the kernel calls `unique` be interrupted, as long as the first of
    /// both lives.
    pub fn enter(self: &Arc<Self>, unique: u64) -> (Interruptible, Interrupted) {
        let (sender, interrupted) = oneshot::channel();
        let mut state = self.0.lock();
        match state.early.contains(&unique) {
            true => drop(sender.send(())),
            false => drop(state.waiting.insert(unique, sender)),
        }
        (Interruptible { interrupts: Arc::clone(self), unique }, interrupted)
    }

    /// A signal came for the request `unique`.
    pub fn interrupt(&self, unique: u64) {
        let mut state = self.0.lock();
        match state.waiting.remove(&unique) {
            Some(sender) => drop(sender.send(())),
            None => {
                if state.early.len() == EARLY_MAX {
                    state.early.pop_front();
                }
                state.early.push_back(unique);
            }
        }
    }
}

/// A request that can be interrupted.
#[derive(Debug)]
pub struct Interruptible {
    interrupts: Arc<Interrupts>,
    unique: u64,
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        self.interrupts.0.lock().waiting.remove(&self.unique);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_ends_the_wait_that_it_came_for_also_where_it_is_read_first() {
        let interrupts = Arc::new(Interrupts::default());
        let (_first, mut first) = interrupts.enter(1);
        let (_second, mut second) = interrupts.enter(2);
        interrupts.interrupt(2);
        assert!(second.try_recv().is_ok() && first.try_recv().is_err());
        interrupts.interrupt(3);
        let (_third, mut third) = interrupts.enter(3);
        assert!(third.try_recv().is_ok());
    }

    #[test]
    fn what_nothing_waits_for_is_forgotten() {
        let interrupts = Arc::new(Interrupts::default());
        drop(interrupts.enter(1));
        for unique in 0..2 * EARLY_MAX as u64 {
            interrupts.interrupt(unique);
        }
        let state = interrupts.0.lock();
        assert_eq!((state.waiting.len(), state.early.len()), (0, EARLY_MAX));
    }
}
