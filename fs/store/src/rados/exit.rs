//! The end of the process waits for what librados still does.
//!
//! A callback of librados runs on, and a connection whose last holder was a callback is shut down
//! by a thread of its own, after whoever asked has its answer. A process that ends at that moment
//! destroys librados' static objects below their feet: the program has done all of its work and
//! dies by a signal. So both are counted, and a function that runs at exit, before those objects
//! go, waits until there are none, [`WAIT_MAX`] at most.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A cluster that does not answer must not keep a process from ending.
const WAIT_MAX: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(2);

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Something within librados that the end of the process waits for, until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(());

impl UnderWay {
    pub(super) fn begin() -> UnderWay {
        UNDER_WAY.fetch_add(1, Ordering::AcqRel);
        UnderWay(())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Has the end of the process wait, once for each `once`. Functions of an exit run in the reverse
/// order of their registration, with the destruction of static objects among them: what librados
/// has made until now is destroyed after the wait, what it makes later before it.
pub(super) fn wait_at_exit(once: &'static Once) {
    once.call_once(|| {
        // SAFETY: `wait` takes nothing, returns nothing and does not unwind.
        let _no_room = unsafe { libc::atexit(wait) };
    });
}

extern "C" fn wait() {
    let begun = Instant::now();
    while UNDER_WAY.load(Ordering::Acquire) > 0 && begun.elapsed() < WAIT_MAX {
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    /// One test, as all share the count.
    #[test]
    fn the_end_waits_for_what_is_under_way_and_not_for_ever() {
        let done = Arc::new(AtomicBool::new(false));
        let (begin, begun) = mpsc::channel();
        let worker = thread::spawn({
            let done = Arc::clone(&done);
            move || {
                let under_way = UnderWay::begin();
                begin.send(()).expect("the test waits for it");
                thread::sleep(LOOK_EVERY * 10);
                done.store(true, Ordering::Release);
                drop(under_way);
            }
        });
        begun.recv().expect("the worker has begun");
        wait();
        assert!(done.load(Ordering::Acquire), "the end waited for the worker");
        worker.join().expect("the worker ends");

        let silent = UnderWay::begin();
        wait();
        drop(silent);
    }
}
