//! A long soak: real work of several users while the daemon is killed every so often, and on Ceph
//! the OSD too. At the end everything is there that was promised, compared with what was noted
//! outside of the mount.
//!
//! Half a minute in `make test`, half an hour in `make test-long`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use yadokari_tests::ceph::{self, Ceph};
use yadokari_tests::instance::{Instance, Options};
use yadokari_tests::soak::{Appender, Git, Maker, Replacer, Rsync, Soak, Sqlite};
use yadokari_tests::stores::StoreKind;
use yadokari_tests::{is_long, on_every_store, usage};

on_every_store! {
    what_was_synced_outlives_a_soak_with_kills_of_daemon_and_osd => soak;
}

/// How long, and how often something is killed.
struct Times {
    all: Duration,
    daemon: Duration,
    osd: Duration,
    /// How long an OSD stays away.
    osd_away: Duration,
}

impl Times {
    fn new() -> Self {
        let seconds = Duration::from_secs;
        if is_long() {
            let all = seconds(30 * 60);
            Self { all, daemon: seconds(60), osd: seconds(300), osd_away: seconds(20) }
        } else {
            Self { all: seconds(28), daemon: seconds(7), osd: seconds(12), osd_away: seconds(2) }
        }
    }
}

fn soak(store: StoreKind) -> Result<()> {
    let times = Times::new();
    // A cluster of its own, whose OSD keeps its data when it is killed.
    let ceph = match store {
        StoreKind::File => None,
        StoreKind::Ceph => {
            Some(Ceph::start_with(&ceph::Options { bluestore: true, ..Default::default() })?)
        }
    };
    let mut instance = match &ceph {
        None => Instance::start(store)?,
        Some(ceph) => Instance::start_on(&ceph.url("soak"), Options::default())?,
    };
    let (ada, bob) = (Arc::new(instance.user()?), Arc::new(instance.user()?));
    let beside = instance.beside().to_owned();
    let mut soak = Soak::new();
    for user in [&ada, &bob] {
        soak.start(Appender::default(), user, &beside)?;
        soak.start(Maker::default(), user, &beside)?;
    }
    soak.start(Replacer::default(), &ada, &beside)?;
    soak.start(Sqlite::new(true), &ada, &beside)?;
    soak.start(Git::default(), &ada, &beside)?;
    soak.start(Sqlite::new(false), &bob, &beside)?;
    soak.start(Rsync::default(), &bob, &beside)?;

    let started = Instant::now();
    let (mut kills, mut osd_kills) = (0, 0);
    while started.elapsed() < times.all {
        std::thread::sleep(Duration::from_millis(100));
        soak.is_well()?;
        let due = |every: Duration, done: u32| started.elapsed() > every * (done + 1);
        if let Some(ceph) = ceph.as_ref().filter(|_| due(times.osd, osd_kills)) {
            osd_kills += 1;
            ceph.kill_osd(0)?;
            std::thread::sleep(times.osd_away);
            ceph.start_osd(0)?;
            // A daemon that starts before its store answers ends after half a minute.
            ceph.wait_for_pool("data")?;
        }
        if due(times.daemon, kills) {
            kills += 1;
            usage::stays_within_bounds(&instance, &format!("before kill {kills}"))?;
            soak.interrupt(|| {
                instance.kill9();
                instance.restart()
            })?;
        }
    }
    soak.end()?;
    eprintln!("{kills} kills of the daemon, {osd_kills} of the OSD");
    usage::stays_within_bounds(&instance, "at the end")?;
    // As the store has it, without anything that the daemon or the kernel remembers.
    instance.stop()?;
    instance.restart()?;
    soak.check()?;
    for user in [&ada, &bob] {
        usage::quota_is_exact(&instance, &user.name, &user.home)?;
    }
    instance.fsck_is_clean()
}
