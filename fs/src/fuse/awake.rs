//! Keeps processors from halting while requests come fast.
//!
//! A program that waits for an answer leaves its processor idle, and a processor that idles
//! halts. In a virtual machine to wake it is an exit to the hypervisor on both sides, tens of
//! microseconds, on metal up to a hundred where it sleeps deeply; that is most of what a request
//! costs. The kernel takes a bound on how long waking up may take (`/dev/cpu_dma_latency`,
//! `Documentation/power/pm_qos_interface.rst`). While requests come fast it is asked for one, and
//! not longer than [`Awake::rest`] after the last of them. An idle processor that stays awake
//! takes no time from anything that runs.
//!
//! On metal the shallowest sleep is allowed; in a virtual machine none is, so that idle
//! processors poll. Without the right to ask, or with no driver that listens, nothing changes.
//! What it brings and costs: `fs/decisions/awake-while-busy.md`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const REQUEST: &str = "/dev/cpu_dma_latency";
const DRIVER: &str = "/sys/devices/system/cpu/cpuidle/current_driver";
const STATES: &str = "/sys/devices/system/cpu/cpu0/cpuidle";
/// What the kernel takes for no bound: 2,000 s in us.
pub(super) const NO_BOUND: i32 = 2_000_000_000;
/// A request comes fast that was waited for less than this.
const FAST: Duration = Duration::from_millis(1);
/// Points for requests that came fast: each is one, and one that did not halves them.
const POINTS_MAX: u32 = 64;
/// The bound is asked for from so many points on,
const POINTS_TO_ASK: u32 = 16;
/// and given up with fewer than these.
const POINTS_TO_KEEP: u32 = 4;

/// The bound on waking up, asked for while it pays.
#[derive(Debug)]
pub struct Awake {
    /// `/dev/cpu_dma_latency`: the bound holds while it is open.
    request: File,
    /// In us.
    bound: i32,
    rest: Duration,
    asked: bool,
    points: u32,
}

impl Awake {
    /// That of this machine, which ends `rest` after the last request; `None` where `rest` is
    /// zero, the machine knows no bound or this process may not ask for one.
    #[must_use]
    pub fn of_machine(rest: Duration) -> Option<Self> {
        if rest.is_zero() {
            return None;
        }
        let driver = std::fs::read_to_string(DRIVER).ok()?;
        let bound = bound(driver.trim(), is_virtual(), &latencies(Path::new(STATES)))?;
        let request = OpenOptions::new().write(true).open(REQUEST).ok()?;
        Self::new(request, bound, rest)
    }

    /// Over `request`, which takes bounds in us; `None` where it does not.
    pub(super) fn new(request: File, bound: i32, rest: Duration) -> Option<Self> {
        let mut awake = Self { request, bound, rest, asked: false, points: 0 };
        awake.ask(NO_BOUND).then_some(awake)
    }

    /// A request came after it was waited for so long.
    pub fn arrived(&mut self, waited: Duration) {
        self.points = if waited < FAST { self.points + 1 } else { self.points / 2 };
        self.points = self.points.min(POINTS_MAX);
        if !self.asked && self.points >= POINTS_TO_ASK {
            self.asked = self.ask(self.bound);
        } else if self.asked && self.points < POINTS_TO_KEEP {
            self.end();
        }
    }

    /// How long the next request may be waited for before [`Awake::end`] is called.
    #[must_use]
    pub fn rest(&self) -> Option<Duration> {
        self.asked.then_some(self.rest)
    }

    /// No request came for that long.
    pub fn end(&mut self) {
        self.points = 0;
        if self.asked {
            self.asked = !self.ask(NO_BOUND);
        }
    }

    fn ask(&mut self, bound: i32) -> bool {
        self.request.write_all(&bound.to_ne_bytes()).is_ok()
    }
}

/// The bound to ask for, in us; `None` where none would change anything.
fn bound(driver: &str, is_virtual: bool, latencies: &[i32]) -> Option<i32> {
    match driver {
        "" | "none" => None,
        // A halt leaves the machine, whatever the driver says of it.
        _ if is_virtual => Some(0),
        _ => latencies.iter().copied().min(),
    }
}

/// What the processors' states of sleep say of themselves, in us; polling is none.
fn latencies(states: &Path) -> Vec<i32> {
    let Ok(states) = std::fs::read_dir(states) else { return Vec::new() };
    let latency = |state: std::fs::DirEntry| {
        let name = std::fs::read_to_string(state.path().join("name")).ok()?;
        let latency = std::fs::read_to_string(state.path().join("latency")).ok()?;
        (name.trim() != "POLL").then(|| latency.trim().parse().ok())?
    };
    states.flatten().filter_map(latency).collect()
}

/// As x86 says it; what says nothing is taken for metal.
fn is_virtual() -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|flags| flags.split_ascii_whitespace().any(|flag| flag == "hypervisor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_millis(4);
    const SLOW: Duration = Duration::from_millis(2);

    /// Where what is asked for can be read again.
    fn asked(of: &tempfile::NamedTempFile) -> Vec<i32> {
        let bytes = std::fs::read(of.path()).unwrap();
        bytes.chunks(4).map(|value| i32::from_ne_bytes(value.try_into().unwrap())).collect()
    }

    fn awake(of: &tempfile::NamedTempFile) -> Awake {
        Awake::new(of.reopen().unwrap(), 0, REST).unwrap()
    }

    fn fast(awake: &mut Awake, requests: u32) {
        (0..requests).for_each(|_| awake.arrived(Duration::ZERO));
    }

    #[test]
    fn nothing_is_asked_for_before_requests_come_fast() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut awake = awake(&file);
        fast(&mut awake, POINTS_TO_ASK - 1);
        for _ in 0..100 {
            awake.arrived(SLOW);
        }
        assert_eq!(awake.rest(), None);
        assert_eq!(asked(&file), [NO_BOUND]);
    }

    #[test]
    fn the_bound_is_asked_for_once_and_given_up_at_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut awake = awake(&file);
        fast(&mut awake, 1000);
        assert_eq!(awake.rest(), Some(REST));
        assert_eq!(asked(&file), [NO_BOUND, 0]);
        awake.end();
        awake.end();
        assert_eq!(awake.rest(), None);
        assert_eq!(asked(&file), [NO_BOUND, 0, NO_BOUND]);
        fast(&mut awake, POINTS_TO_ASK);
        assert_eq!(asked(&file), [NO_BOUND, 0, NO_BOUND, 0]);
    }

    #[test]
    fn requests_that_come_slowly_do_not_keep_the_bound() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut awake = awake(&file);
        fast(&mut awake, 1000);
        for _ in 0..10 {
            awake.arrived(SLOW);
        }
        assert_eq!(awake.rest(), None);
        assert_eq!(asked(&file), [NO_BOUND, 0, NO_BOUND]);
    }

    #[test]
    fn a_pause_now_and_then_does_not_end_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut awake = awake(&file);
        for _ in 0..100 {
            fast(&mut awake, POINTS_TO_ASK);
            awake.arrived(SLOW);
        }
        assert_eq!(asked(&file), [NO_BOUND, 0]);
    }

    #[test]
    fn what_is_asked_for_follows_from_the_machine() {
        assert_eq!(bound("none", true, &[1]), None);
        assert_eq!(bound("haltpoll", true, &[1]), Some(0));
        assert_eq!(bound("intel_idle", false, &[133, 2, 10]), Some(2));
        assert_eq!(bound("intel_idle", false, &[]), None);
    }
}
