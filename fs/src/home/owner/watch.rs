//! Watching somebody's heartbeat: pure, on the watcher's own clock.
//!
//! Only time counts in which the watcher itself was awake: what lies between two looks counts up
//! to a limit. A machine that sleeps with both processes on it, or a watcher that was stopped,
//! thus gives the watched one time to show itself.

use std::time::Duration;

use super::lease::LeaseTiming;

/// Between two looks, so many pauses count at most.
const POLLS_COUNTED: u32 = 2;

/// What a look at a heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It changed just now.
    Alive,
    /// It must be watched on.
    Unsure,
    /// It has not changed for the time of a lease.
    Expired,
}

/// A look: what the heartbeat was, somewhere between two points in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<V> {
    /// Before it was read.
    pub began: Duration,
    /// After it was read.
    pub ended: Duration,
    /// Its version; `None` where there is no object.
    pub version: Option<V>,
}

/// What was seen of one heartbeat so far.
#[derive(Debug)]
pub(super) struct Watch<V> {
    version: Option<V>,
    looked: Option<Duration>,
    changed: Option<Duration>,
    unchanged: Duration,
}

impl<V> Default for Watch<V> {
    fn default() -> Self {
        Self { version: None, looked: None, changed: None, unchanged: Duration::ZERO }
    }
}

impl<V: PartialEq> Watch<V> {
    /// Takes one more look into account.
    pub fn look(&mut self, timing: &LeaseTiming, look: Look<V>) -> Life {
        let Some(looked) = self.looked.replace(look.ended) else {
            self.version = look.version;
            return Life::Unsure;
        };
        if look.version.is_some() && look.version != self.version {
            self.version = look.version;
            self.unchanged = Duration::ZERO;
            self.changed = None;
            // A change since an old look says nothing about now.
            if look.ended.saturating_sub(looked) > timing.interval * 2 {
                return Life::Unsure;
            }
            self.changed = Some(look.ended);
            return Life::Alive;
        }
        // From the end of one read to the beginning of the next: never more than what passed
        // between the two states that were seen.
        let gap = look.began.saturating_sub(looked);
        self.unchanged += gap.min(timing.poll() * POLLS_COUNTED);
        if self.unchanged >= timing.ttl {
            return Life::Expired;
        }
        let since = self.changed.and_then(|changed| look.ended.checked_sub(changed));
        match since {
            Some(since) if since < timing.interval => Life::Alive,
            _ => Life::Unsure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: LeaseTiming = LeaseTiming {
        ttl: Duration::from_secs(20),
        margin: Duration::from_secs(4),
        interval: Duration::from_secs(4),
    };

    /// Looks that take no time, at these seconds, with these versions.
    fn run(looks: &[(u64, Option<u32>)]) -> Vec<Life> {
        let mut watch = Watch::default();
        let look = |(at, version): &(u64, Option<u32>)| {
            let at = Duration::from_secs(*at);
            watch.look(&TIMING, Look { began: at, ended: at, version: *version })
        };
        looks.iter().map(look).collect()
    }

    fn last(looks: &[(u64, Option<u32>)]) -> Life {
        *run(looks).last().unwrap()
    }

    fn steady(from: u64, to: u64, version: Option<u32>) -> Vec<(u64, Option<u32>)> {
        (from..=to).map(|at| (at, version)).collect()
    }

    #[test]
    fn a_heartbeat_that_changes_is_alive_at_once() {
        assert_eq!(run(&[(0, Some(1)), (1, Some(2))]), [Life::Unsure, Life::Alive]);
    }

    #[test]
    fn a_heartbeat_that_just_changed_needs_no_second_watch() {
        let looks = [(0, Some(1)), (1, Some(2)), (4, Some(2)), (5, Some(2))];
        assert_eq!(run(&looks), [Life::Unsure, Life::Alive, Life::Alive, Life::Unsure]);
    }

    #[test]
    fn a_heartbeat_expires_after_the_ttl_and_not_before() {
        assert_eq!(last(&steady(0, 19, Some(1))), Life::Unsure);
        assert_eq!(last(&steady(0, 20, Some(1))), Life::Expired);
    }

    #[test]
    fn an_object_that_is_missing_or_vanishes_is_no_sign_of_life() {
        assert_eq!(last(&steady(0, 20, None)), Life::Expired);
        let mut looks = steady(0, 10, Some(1));
        looks.extend(steady(11, 20, None));
        assert_eq!(last(&looks), Life::Expired);
    }

    #[test]
    fn a_change_in_the_last_second_starts_the_watch_anew() {
        let mut looks = steady(0, 19, Some(1));
        looks.push((20, Some(2)));
        assert_eq!(last(&looks), Life::Alive);
        looks.extend(steady(21, 39, Some(2)));
        assert_eq!(last(&looks), Life::Unsure);
        looks.push((40, Some(2)));
        assert_eq!(last(&looks), Life::Expired);
    }

    #[test]
    fn a_watcher_that_was_stopped_does_not_count_that_time() {
        assert_eq!(last(&[(0, Some(1)), (3600, Some(1))]), Life::Unsure);
        assert_eq!(last(&[(0, Some(1)), (3600, Some(1)), (3601, Some(2))]), Life::Alive);
    }

    #[test]
    fn a_change_since_a_look_long_ago_is_no_sign_of_life_now() {
        assert_eq!(last(&[(0, Some(1)), (3600, Some(2))]), Life::Unsure);
        let mut looks = vec![(0, Some(1))];
        looks.extend(steady(3600, 3620, Some(2)));
        assert_eq!(last(&looks), Life::Expired);
    }

    #[test]
    fn a_clock_that_jumps_back_never_makes_anybody_expire() {
        let mut looks = steady(1000, 1010, Some(1));
        looks.extend(steady(0, 9, Some(1)));
        assert_eq!(last(&looks), Life::Unsure);
    }

    #[test]
    fn the_time_that_reads_take_does_not_count() {
        let mut watch = Watch::default();
        for at in 0..19 {
            let began = Duration::from_secs(at * 10);
            let look = Look { began, ended: began + Duration::from_secs(9), version: Some(1) };
            assert_ne!(watch.look(&TIMING, look), Life::Expired, "look {at}");
        }
    }

    #[test]
    fn whoever_expired_once_is_expired_at_the_next_look() {
        let mut looks = steady(0, 20, Some(1));
        looks.push((500, Some(1)));
        assert_eq!(last(&looks), Life::Expired);
    }
}
