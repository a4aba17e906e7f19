//! Failed logins are slowed, per user and address and per address alone.
//!
//! The first few failures cost nothing: people mistype. After them every further attempt is
//! refused until a time that doubles with each failure, up to a minute; a right password in
//! between clears the pair of user and address, never the address. Nobody is ever locked out
//! from another address. The table is bounded: when it is full the oldest entries go.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::unsync::Cache;

use yadokari_catalog::Clock;

/// Failures of one user from one address that cost nothing.
const FREE_PAIR: u32 = 5;
/// Failures from one address: many people may share it.
const FREE_ADDRESS: u32 = 50;
/// The first wait.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// After so long without a failure everything is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// Pairs and addresses that are counted.
const KEPT_MAX: usize = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Pair(u64),
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    failures: u32,
    /// Attempts that are being verified count as failures until they are known.
    pending: u32,
    last: Duration,
}

/// Counts failures.
#[derive(Debug)]
pub struct Slow {
    hash: RandomState,
    counts: Mutex<Cache<Key, Count>>,
}

impl Default for Slow {
    fn default() -> Self {
        Self { hash: RandomState::new(), counts: Mutex::new(Cache::new(KEPT_MAX)) }
    }
}

/// An attempt that may be verified; it fails unless it is told otherwise.
#[derive(Debug)]
pub struct Attempt<'a> {
    slow: &'a Slow,
    clock: &'a dyn Clock,
    keys: [Key; 2],
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Failed,
    Right,
    /// Nobody could say.
    Unknown,
}

impl Slow {
    /// Lets an attempt through, or says how long to wait.
    pub fn attempt<'a>(
        &'a self,
        clock: &'a dyn Clock,
        login: &str,
        address: IpAddr,
    ) -> Result<Attempt<'a>, Duration> {
        let now = clock.monotonic();
        let address = network(address);
        let pair = Key::Pair(self.hash.hash_one((login, address)));
        let keys = [pair, Key::Address(address)];
        let mut counts = self.counts.lock();
        let waits = keys.map(|key| counts.get(&key).map_or(Duration::ZERO, |c| c.wait(key, now)));
        let wait = waits[0].max(waits[1]);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        for key in keys {
            let mut count = counts.get(&key).copied().unwrap_or_default();
            count.pending = count.pending.saturating_add(1);
            counts.insert(key, count);
        }
        Ok(Attempt { slow: self, clock, keys, end: End::Failed })
    }
}

impl Count {
    fn wait(&self, key: Key, now: Duration) -> Duration {
        let free = match key {
            Key::Pair(_) => FREE_PAIR,
            Key::Address(_) => FREE_ADDRESS,
        };
        let quiet = now.saturating_sub(self.last);
        let failures = if quiet >= FORGIVEN_AFTER { 0 } else { self.failures };
        if failures < free {
            // Parallel guesses must not all get through before the first has failed. Of one
            // address many users may log in at the same time.
            let through = matches!(key, Key::Address(_)) || self.pending < free - failures;
            return if through { Duration::ZERO } else { WAIT_MIN };
        }
        let doubled = WAIT_MIN.saturating_mul(1 << (failures - free).min(6)).min(WAIT_MAX);
        let wait = doubled.saturating_sub(quiet);
        if wait == Duration::ZERO && self.pending > 0 { WAIT_MIN } else { wait }
    }
}

impl Attempt<'_> {
    /// The password was right.
    pub fn right(mut self) {
        self.end = End::Right;
    }

    /// It could not be verified, which is nobody's fault.
    pub fn unknown(mut self) {
        self.end = End::Unknown;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let now = self.clock.monotonic();
        let mut counts = self.slow.counts.lock();
        for key in self.keys {
            let mut count = counts.get(&key).copied().unwrap_or_default();
            count.pending = count.pending.saturating_sub(1);
            match (self.end, key) {
                (End::Failed, _) => {
                    let forgiven = now.saturating_sub(count.last) >= FORGIVEN_AFTER;
                    count.failures = if forgiven { 1 } else { count.failures.saturating_add(1) };
                    count.last = now;
                }
                (End::Right, Key::Pair(_)) => count.failures = 0,
                (End::Right, Key::Address(_)) | (End::Unknown, _) => {}
            }
            if count.failures == 0 && count.pending == 0 {
                counts.remove(&key);
            } else {
                counts.insert(key, count);
            }
        }
    }
}

/// Whoever has one IPv6 address has the whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let bits = v6.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::testing::TestClock;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn failures_cost_ever_more_time_and_a_right_password_clears_them() {
        let (slow, clock) = (Slow::default(), TestClock::new());
        for _ in 0..FREE_PAIR {
            drop(slow.attempt(&*clock, "ada", HERE).unwrap());
        }
        assert_eq!(slow.attempt(&*clock, "ada", HERE).unwrap_err(), Duration::from_secs(1));
        clock.advance(Duration::from_secs(1));
        drop(slow.attempt(&*clock, "ada", HERE).unwrap());
        assert_eq!(slow.attempt(&*clock, "ada", HERE).unwrap_err(), Duration::from_secs(2));
        slow.attempt(&*clock, "ada", THERE).expect("from elsewhere she gets in").right();
        slow.attempt(&*clock, "bob", HERE).expect("and others from there").right();
        clock.advance(Duration::from_secs(2));
        slow.attempt(&*clock, "ada", HERE).unwrap().right();
        for _ in 0..FREE_PAIR {
            drop(slow.attempt(&*clock, "ada", HERE).unwrap());
        }
    }

    #[test]
    fn no_wait_is_longer_than_a_minute() {
        let (slow, clock) = (Slow::default(), TestClock::new());
        for _ in 0..100 {
            clock.advance(WAIT_MAX);
            drop(slow.attempt(&*clock, "ada", HERE).unwrap());
        }
        assert_eq!(slow.attempt(&*clock, "ada", HERE).unwrap_err(), WAIT_MAX);
        clock.advance(FORGIVEN_AFTER);
        drop(slow.attempt(&*clock, "ada", HERE).unwrap());
        drop(slow.attempt(&*clock, "ada", HERE).unwrap());
    }

    #[test]
    fn guesses_in_parallel_are_no_way_around() {
        let (slow, clock) = (Slow::default(), TestClock::new());
        let open: Vec<_> = (0..100).map_while(|_| slow.attempt(&*clock, "a", HERE).ok()).collect();
        assert_eq!(open.len(), usize::try_from(FREE_PAIR).unwrap());
    }

    #[test]
    fn one_address_that_tries_many_names_is_slowed_too() {
        let (slow, clock) = (Slow::default(), TestClock::new());
        let tried = (0..1000)
            .map_while(|n| slow.attempt(&*clock, &format!("user{n}"), HERE).ok().map(drop))
            .count();
        assert_eq!(tried, usize::try_from(FREE_ADDRESS).unwrap());
        slow.attempt(&*clock, "ada", THERE).unwrap().right();
    }

    #[test]
    fn an_outage_counts_as_nobodys_failure() {
        let (slow, clock) = (Slow::default(), TestClock::new());
        for _ in 0..100 {
            slow.attempt(&*clock, "ada", HERE).unwrap().unknown();
        }
    }

    #[test]
    fn a_whole_ipv6_network_counts_as_one_address() {
        let ip = |text: &str| network(text.parse().unwrap());
        assert_eq!(ip("2001:db8:1:2:3::1"), ip("2001:db8:1:2:ffff::9"));
        assert_ne!(ip("2001:db8:1:2::1"), ip("2001:db8:1:3::1"));
        assert_eq!(ip("::ffff:192.0.2.1"), HERE);
    }
}
