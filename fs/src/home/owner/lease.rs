//! How long an owner may take itself for alive: pure arithmetic on its own clock.

use std::time::Duration;

/// The times of a lease. All nodes of a store use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTiming {
    /// A heartbeat that did not change for so long belongs to a dead process.
    pub ttl: Duration,
    /// An owner stops so much earlier than `ttl`: for clocks that run at different speeds.
    pub margin: Duration,
    /// A heartbeat changes this often.
    pub interval: Duration,
}

impl Default for LeaseTiming {
    /// 20 s is what a login may wait after a node died; 4 s in between leave three renewals that
    /// may fail before anybody notices.
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(20),
            margin: Duration::from_secs(4),
            interval: Duration::from_secs(4),
        }
    }
}

impl LeaseTiming {
    /// How long one renewal carries.
    #[must_use]
    pub fn carries(&self) -> Duration {
        self.ttl.saturating_sub(self.margin)
    }

    /// Between two looks at somebody's heartbeat.
    pub(super) fn poll(&self) -> Duration {
        self.interval / 4
    }

    /// After a renewal that failed, until the next.
    pub(super) fn retry_pause(&self) -> Duration {
        self.interval / 8
    }

    /// Two renewals fit in what one carries, or the lease would lapse all the time.
    pub(super) fn is_sound(&self) -> bool {
        !self.interval.is_zero() && self.interval * 2 <= self.carries()
    }
}

/// The lease of a process, renewed by its heartbeat.
#[derive(Debug)]
pub(super) struct Lease {
    timing: LeaseTiming,
    /// When the last successful renewal began.
    renewed: Option<Duration>,
    lapses: u64,
}

impl Lease {
    pub fn new(timing: LeaseTiming) -> Self {
        assert!(timing.is_sound(), "a lease that cannot be kept: {timing:?}");
        Self { timing, renewed: None, lapses: 0 }
    }

    /// A renewal that began at `began` has been confirmed at `now`. It counts from its beginning,
    /// because a claimer may have seen it at any time since.
    pub fn renew(&mut self, began: Duration, now: Duration) {
        if !self.is_valid(now) {
            self.lapses += 1;
        }
        self.renewed = Some(began);
    }

    /// Nothing is valid any more until the next renewal.
    pub fn end(&mut self) {
        self.renewed = None;
    }

    /// When the lease is valid: from its last renewal on, because a clock that went backwards is
    /// not trusted, until what that carries. Empty when there was none.
    pub fn window(&self) -> (Duration, Duration) {
        match self.renewed {
            Some(renewed) => (renewed, renewed + self.timing.carries()),
            None => (Duration::ZERO, Duration::ZERO),
        }
    }

    /// Whether nobody can have taken this process for dead.
    pub fn is_valid(&self, now: Duration) -> bool {
        let (from, until) = self.window();
        (from..until).contains(&now)
    }

    /// How often the lease began anew; what was confirmed under another number must be again.
    pub fn lapses(&self) -> u64 {
        self.lapses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lease() -> Lease {
        Lease::new(LeaseTiming { ttl: s(20), margin: s(4), interval: s(4) })
    }

    #[test]
    fn a_lease_is_valid_from_its_first_renewal_until_ttl_less_margin() {
        let mut lease = lease();
        assert!(!lease.is_valid(s(100)));
        lease.renew(s(100), s(101));
        for (now, valid) in [(101, true), (115, true), (116, false), (200, false)] {
            assert_eq!(lease.is_valid(s(now)), valid, "at {now} s");
        }
    }

    #[test]
    fn renewals_in_time_never_lapse() {
        let mut lease = lease();
        lease.renew(s(0), s(0));
        let first = lease.lapses();
        for at in (4..100).step_by(4) {
            lease.renew(s(at), s(at + 2));
        }
        assert_eq!(lease.lapses(), first);
    }

    #[test]
    fn a_renewal_that_was_confirmed_too_late_counts_as_a_lapse() {
        // began, confirmed, whether that is a lapse
        let table = [(4, 5, false), (4, 15, false), (4, 16, true), (15, 17, true), (90, 91, true)];
        for (began, confirmed, lapse) in table {
            let mut lease = lease();
            lease.renew(s(0), s(0));
            let before = lease.lapses();
            lease.renew(s(began), s(confirmed));
            assert_eq!(lease.lapses() > before, lapse, "{began} to {confirmed}");
        }
    }

    #[test]
    fn a_process_that_was_stopped_finds_its_lease_over_before_it_renews() {
        let mut lease = lease();
        lease.renew(s(0), s(0));
        assert!(lease.is_valid(s(10)));
        // SIGSTOP, a suspended machine, a paused virtual machine: the clock just goes on.
        assert!(!lease.is_valid(s(3600)));
        // A renewal that was in flight when it stopped carries nothing.
        lease.renew(s(10), s(3600));
        assert!(!lease.is_valid(s(3600)));
    }

    #[test]
    fn a_clock_that_went_backwards_makes_a_lease_invalid() {
        let mut lease = lease();
        lease.renew(s(100), s(100));
        assert!(!lease.is_valid(s(99)));
    }
}
