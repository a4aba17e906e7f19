//! What the tests of this part share: a clock that stands until it is moved.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use yadokari_catalog::{Clock, Seams, SystemRandomness};

/// Both clocks in one, moved by hand.
#[derive(Debug)]
pub struct TestClock(Mutex<Duration>);

impl TestClock {
    /// Long after 1970.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Duration::from_secs(1_700_000_000))))
    }

    pub fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }

    pub fn seams(self: &Arc<Self>) -> Seams {
        let clock: Arc<dyn Clock> = Arc::<Self>::clone(self);
        Seams { clock, random: Arc::new(SystemRandomness) }
    }
}

impl Clock for TestClock {
    fn wall_ms(&self) -> u64 {
        u64::try_from(self.0.lock().as_millis()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock()
    }
}
