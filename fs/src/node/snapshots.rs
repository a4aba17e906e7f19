//! Snapshots: what commands ask for, and the schedule.
//!
//! The schedule looks at the homes that this daemon has seen: one that nobody used did not
//! change. A home that is closed is opened again only where it changed since its last snapshot,
//! and a snapshot that fails is tried again at the next look.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::records::Records;
use crate::home::{self, Error, ErrorKind, Home, Ino, Keep, Origin, Plan, SnapshotInfo, Time};
use crate::view::{Slot, Table};

/// How often the schedule looks.
const LOOK: Duration = Duration::from_secs(60);
/// Snapshots that one who does not administer the daemon may have made by command: what they
/// hold is not charged.
pub const OWN_MAX: usize = 16;

/// Makes a snapshot by command.
///
/// # Errors
/// As for [`Home::make_snapshot`]; `TooManySnapshots` where the owner has made enough.
pub async fn create(home: &Home, name: Option<String>, master: bool) -> home::Result<SnapshotInfo> {
    let made = home.snapshots()?.iter().filter(|s| s.origin == Origin::Command).count();
    if !master && made >= OWN_MAX {
        return Err(ErrorKind::TooManySnapshots(OWN_MAX).into());
    }
    let now: DateTime<Utc> = std::time::SystemTime::now().into();
    let name = name.unwrap_or_else(|| now.format("%Y-%m-%d_%H%M%S").to_string());
    home.make_snapshot(&name, Origin::Command).await
}

/// What is remembered of a home between two looks.
#[derive(Default)]
struct Seen {
    /// Its snapshots and its last change, as of the last look while it was open.
    last: Option<(Vec<SnapshotInfo>, u64, Time)>,
}

/// Keeps the schedule until the task is aborted.
pub async fn keep_schedule(table: Arc<Table>, records: Arc<dyn Records>, keep: Keep) {
    let mut seen: HashMap<u32, Seen> = HashMap::new();
    loop {
        tokio::time::sleep(LOOK).await;
        for slot in table.all() {
            if !slot.head().scheduled {
                continue;
            }
            let seen = seen.entry(slot.volume).or_default();
            if let Err(error) = look(&slot, &*records, keep, seen).await {
                tracing::warn!(home = %slot.name, %error, "its snapshots wait");
            }
        }
    }
}

async fn look(
    slot: &Arc<Slot>,
    records: &dyn Records,
    keep: Keep,
    seen: &mut Seen,
) -> home::Result<()> {
    let now = now();
    if let Some(open) = slot.opened() {
        let born = open.home.getattr(Ino::ROOT).await?.btime;
        seen.last = Some((open.home.snapshots()?, open.home.changed(), born));
    }
    let Some((snapshots, changed, born)) = &seen.last else { return Ok(()) };
    let plan = Plan::new(keep, snapshots, *changed, *born, now);
    if plan == Plan::default() {
        return Ok(());
    }
    // Another node may have switched it off.
    if records.show(&slot.name).await?.is_none_or(|head| !head.scheduled) {
        return Ok(());
    }
    let open = slot.home().await?;
    carry_out(&open.home, plan).await?;
    seen.last = Some((open.home.snapshots()?, open.home.changed(), *born));
    Ok(())
}

async fn carry_out(home: &Home, plan: Plan) -> home::Result<()> {
    if let Some((name, origin)) = plan.make {
        match home.make_snapshot(&name, origin).await {
            Ok(_) | Err(Error(ErrorKind::Exists)) => {}
            Err(error) => return Err(error),
        }
    }
    for name in plan.remove {
        match home.remove_snapshot(&name).await {
            Ok(()) | Err(Error(ErrorKind::NotFound)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn now() -> Time {
    use crate::home::Clock;
    crate::home::SystemClock.now()
}
