//! The seam through which wall-clock time enters a home, so that tests replay from a seed.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use super::types::Time;

/// Tells the time that goes into inodes and records.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Now, by the wall clock.
    fn now(&self) -> Time;
}

/// The clock of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Time {
                sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                nsec: since.subsec_nanos(),
            },
            Err(_before_1970) => Time::default(),
        }
    }
}
