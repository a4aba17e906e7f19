//! The clock of a home's tables: never behind what the tables have seen.
//!
//! SlateDB refuses writes while its clock is behind that of the last write. A home that moves to
//! a node whose clock lags would fail until it caught up; so every batch says its time, and who
//! opens the tables next goes on from there. Nothing of ours reads this clock.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use slatedb_common::clock::{DefaultSystemClock, SystemClock, SystemClockTicker};

use crate::home::clock::Clock;
use crate::home::types::Time;

/// More than passes between a batch's own time and the one that SlateDB gives it.
const MARGIN_MS: i64 = 1_000;

#[derive(Debug)]
pub struct TableClock {
    wall: Arc<dyn Clock>,
    sleeper: DefaultSystemClock,
    ahead_ms: AtomicI64,
}

impl TableClock {
    /// Follows `wall`.
    pub fn new(wall: Arc<dyn Clock>) -> Self {
        Self { wall, sleeper: DefaultSystemClock::default(), ahead_ms: AtomicI64::new(0) }
    }

    /// Now, in milliseconds since 1970.
    pub fn millis(&self) -> i64 {
        self.now().timestamp_millis()
    }

    /// Goes on from `millis` where the system's clock is behind it.
    pub fn go_on_from(&self, millis: i64) {
        let behind = millis.saturating_add(MARGIN_MS).saturating_sub(self.millis());
        if behind > 0 {
            self.ahead_ms.fetch_add(behind, Ordering::Relaxed);
        }
    }
}

impl SystemClock for TableClock {
    fn now(&self) -> DateTime<Utc> {
        let Time { sec, nsec } = self.wall.now();
        let now = DateTime::from_timestamp(sec, nsec).unwrap_or_default();
        now + TimeDelta::milliseconds(self.ahead_ms.load(Ordering::Relaxed))
    }

    fn sleep<'a>(&'a self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.sleeper.sleep(duration)
    }

    fn ticker<'a>(&'a self, duration: Duration) -> SystemClockTicker<'a> {
        SystemClockTicker::new(self, duration)
    }
}
