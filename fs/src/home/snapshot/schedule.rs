//! When the schedule makes a snapshot, and which ones it drops: pure.
//!
//! As rsnapshot keeps them: so many of each kind, the oldest goes when a new one was made. A
//! weekly one is the daily and the hourly one of its moment too, so at most one is made at a
//! time. A home that did not change since the last one of a kind gets none of it, and keeps what
//! it has.

use chrono::DateTime;

use super::{Origin, SnapshotInfo};
use crate::home::types::Time;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// 1970 began on a Thursday; weeks begin on Mondays.
const MONDAY: i64 = 4 * DAY;

/// How many of each kind the schedule keeps; 0 makes none of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Each hour.
    pub hourly: u32,
    /// Each day.
    pub daily: u32,
    /// Each week.
    pub weekly: u32,
}

impl Keep {
    /// No schedule.
    pub const NONE: Keep = Keep { hourly: 0, daily: 0, weekly: 0 };

    fn of(self, origin: Origin) -> u32 {
        match origin {
            Origin::Export | Origin::Command => 0,
            Origin::Hourly => self.hourly,
            Origin::Daily => self.daily,
            Origin::Weekly => self.weekly,
        }
    }
}

impl Default for Keep {
    fn default() -> Self {
        Keep { hourly: 24, daily: 7, weekly: 4 }
    }
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Make this one.
    pub make: Option<(String, Origin)>,
    /// Then remove these, by name.
    pub remove: Vec<String>,
}

impl Plan {
    /// The plan for a home that was made at `born` and whose last change is of transaction
    /// `changed`, in UTC.
    #[must_use]
    pub fn new(
        keep: Keep,
        snapshots: &[SnapshotInfo],
        changed: u64,
        born: Time,
        now: Time,
    ) -> Self {
        let due = [Origin::Weekly, Origin::Daily, Origin::Hourly]
            .into_iter()
            .find(|kind| keep.of(*kind) > 0 && is_due(*kind, snapshots, changed, born, now));
        let make = due.map(|kind| (name(kind, now), kind));
        let make = make.filter(|(name, _)| snapshots.iter().all(|s| s.name != *name));
        let mut remove = Vec::new();
        for kind in [Origin::Hourly, Origin::Daily, Origin::Weekly] {
            let new = usize::from(make.as_ref().is_some_and(|(_, made)| *made == kind));
            let kept = keep.of(kind) as usize;
            let mut of_kind: Vec<_> = snapshots.iter().filter(|s| s.origin == kind).collect();
            of_kind.sort_by_key(|s| s.txn);
            let over = (of_kind.len() + new).saturating_sub(kept).min(of_kind.len());
            remove.extend(of_kind[..over].iter().map(|s| s.name.clone()));
        }
        Self { make, remove }
    }
}

fn is_due(kind: Origin, snapshots: &[SnapshotInfo], changed: u64, born: Time, now: Time) -> bool {
    // A new home has no earlier hour to go back to.
    if now.sec.saturating_sub(born.sec) < HOUR {
        return false;
    }
    let last = snapshots.iter().filter(|s| s.origin >= kind).max_by_key(|s| s.txn);
    last.is_none_or(|last| {
        // A clock that went back makes none twice.
        changed > last.txn && period(kind, now.sec) > period(kind, last.created.sec)
    })
}

fn period(kind: Origin, sec: i64) -> i64 {
    match kind {
        Origin::Export | Origin::Command | Origin::Hourly => sec.div_euclid(HOUR),
        Origin::Daily => sec.div_euclid(DAY),
        Origin::Weekly => (sec - MONDAY).div_euclid(7 * DAY),
    }
}

fn name(kind: Origin, now: Time) -> String {
    let when = DateTime::from_timestamp(now.sec, 0).unwrap_or_default();
    format!("{}-{}", kind.text(), when.format("%Y-%m-%d_%H%M"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::homes::RootAttrs;

    const KEEP: Keep = Keep { hourly: 3, daily: 2, weekly: 1 };
    /// A Monday.
    const START: i64 = 1_763_942_400;

    /// A home that changes all the time, over so many hours.
    fn live(keep: Keep, hours: i64) -> Vec<SnapshotInfo> {
        let mut all: Vec<SnapshotInfo> = Vec::new();
        for minute in 0..hours * 60 {
            let now = Time { sec: START + minute * 60, nsec: 0 };
            let born = Time { sec: START - DAY, nsec: 0 };
            let txn = u64::try_from(minute).unwrap() + 1;
            let plan = Plan::new(keep, &all, txn, born, now);
            all.retain(|s| !plan.remove.contains(&s.name));
            all.extend(plan.make.map(|(name, origin)| SnapshotInfo {
                txn,
                name,
                origin,
                created: now,
                volume: 0,
                bytes: 0,
                inodes: 0,
                root: RootAttrs::new(0, 0, 0o700, now).attr(),
            }));
        }
        all
    }

    #[test]
    fn the_schedule_keeps_so_many_of_each_kind_and_the_newest() {
        let all = live(KEEP, 24 * 20);
        let of = |kind| all.iter().filter(|s| s.origin == kind).map(|s| &*s.name).collect();
        let hourly: Vec<&str> = of(Origin::Hourly);
        let day = "hourly-2025-12-13";
        assert_eq!(hourly, [21, 22, 23].map(|hour| format!("{day}_{hour}00")));
        let daily: Vec<&str> = of(Origin::Daily);
        assert_eq!(daily, ["daily-2025-12-12_0000", "daily-2025-12-13_0000"]);
        let weekly: Vec<&str> = of(Origin::Weekly);
        assert_eq!(weekly, ["weekly-2025-12-08_0000"]);
    }

    #[test]
    fn a_home_that_did_not_change_gets_no_snapshot_and_keeps_what_it_has() {
        // Its last change is in an hourly one; a weekly one keeps that for longer, and then
        // nothing happens any more.
        let mut all = live(KEEP, 24 * 20);
        let changed = all.iter().map(|s| s.txn).max().unwrap();
        let later = |days| Time { sec: START + days * DAY, nsec: 0 };
        let plan = Plan::new(KEEP, &all, changed, Time::default(), later(60));
        let (name, origin) = plan.make.unwrap();
        assert_eq!((&*name, origin), ("weekly-2026-01-23_0000", Origin::Weekly));
        let made = SnapshotInfo { txn: changed + 1, name, origin, ..all[0].clone() };
        all.retain(|s| !plan.remove.contains(&s.name));
        all.push(SnapshotInfo { created: later(60), ..made });
        for days in 61..200 {
            let plan = Plan::new(KEEP, &all, changed, Time::default(), later(days));
            assert_eq!(plan, Plan::default());
        }
    }

    #[test]
    fn a_schedule_that_keeps_none_drops_its_own_and_never_those_of_a_command() {
        let mut all = live(KEEP, 50);
        all[0].origin = Origin::Command;
        let later = Time { sec: START + 60 * DAY, nsec: 0 };
        let plan = Plan::new(Keep::NONE, &all, u64::MAX, Time::default(), later);
        assert_eq!((plan.make, plan.remove.len()), (None, all.len() - 1));
    }

    #[test]
    fn a_new_home_gets_none_within_its_first_hour() {
        let (born, soon) = (Time { sec: 1000, nsec: 0 }, Time { sec: 4599, nsec: 0 });
        assert_eq!(Plan::new(KEEP, &[], 9, born, soon), Plan::default());
        let hour = Time { sec: 4600, nsec: 0 };
        assert!(Plan::new(KEEP, &[], 9, born, hour).make.is_some());
    }
}
