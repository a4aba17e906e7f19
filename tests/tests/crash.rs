//! `kill -9` under load, and a start afterwards: promises hold, files are whole, quota is exact.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use yadokari_tests::crash::{self, Load, Promises};
use yadokari_tests::instance::{Instance, is_plain};
use yadokari_tests::stores::StoreKind;
use yadokari_tests::{differential, is_long, on_every_store};

/// Kills in one run.
const KILLS: usize = 6;
const KILLS_LONG: usize = 100;
/// Replacements that must have happened under kills, by the issue's own words.
const REPLACEMENTS: usize = 1000;

on_every_store! {
    what_fsync_acknowledged_survives_kill_9_under_load => promises_survive;
    a_file_replaced_by_rename_without_fsync_is_never_empty_or_mixed => replaced_is_whole;
    a_home_that_was_open_when_the_daemon_was_killed_opens_again_by_itself => opens_again;
    a_clean_stop_loses_nothing_at_all => clean_stop;
    a_home_closed_to_others_is_closed_to_them_after_a_kill_too => stays_private;
}

fn promises_survive(store: StoreKind) -> Result<()> {
    let mut instance = Instance::start(store)?;
    let user = instance.user()?;
    let promises = Arc::new(Promises::default());
    let (seed, _) = differential::plan(0);
    eprintln!("moments of the kills: YADOKARI_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut promised = 0;
    for round in 0..if is_long() { KILLS_LONG } else { KILLS } {
        let dir = user.home.join(format!("round{round}"));
        fs::create_dir(&dir)?;
        let load = Load::start(&dir, &promises);
        std::thread::sleep(Duration::from_millis(random.random_range(300..3000)));
        instance.kill9();
        load.end();
        instance.restart()?;
        promises.check().with_context(|| format!("after kill {round}, seed {seed}"))?;
        crash::check_replaced(&dir.join("replaced"))?;
        ensure!(promises.count() > promised, "the load of round {round} synced nothing");
        promised = promises.count();
    }
    quota_is_exact(&instance, &user.name, &user.home)?;
    instance.fsck_is_clean()
}

fn replaced_is_whole(store: StoreKind) -> Result<()> {
    let mut instance = Instance::start(store)?;
    let user = instance.user()?;
    let dir = user.home.join("replaced");
    let (seed, _) = differential::plan(0);
    eprintln!("moments of the kills: YADOKARI_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut seen = 0;
    let mut replacements = 0;
    let stop = std::sync::atomic::AtomicBool::new(false);
    while replacements < REPLACEMENTS {
        // A kill lands anywhere between a write and the rename, or in the commit behind them.
        let rounds = random.random_range(100..500);
        let started = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = crash::replace(&dir, &stop);
            });
            let pause = Duration::from_millis(rounds * 5);
            std::thread::sleep(pause);
            instance.kill9();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        stop.store(false, std::sync::atomic::Ordering::Relaxed);
        // One replacement takes well under 10 ms; this counts too few rather than too many.
        replacements += usize::try_from(started.elapsed().as_millis() / 10)?;
        instance.restart()?;
        seen += usize::from(crash::check_replaced(&dir).with_context(|| format!("seed {seed}"))?);
    }
    ensure!(seen > 0, "no version ever became durable");
    instance.fsck_is_clean()
}

fn opens_again(store: StoreKind) -> Result<()> {
    let mut instance = Instance::start(store)?;
    let user = instance.user()?;
    let file = user.home.join("kept");
    fs::write(&file, "synced")?;
    fs::File::open(&file)?.sync_all()?;
    // A shell that stays in the home keeps it open across the kill.
    let before = instance.pid();
    instance.kill9();
    instance.restart()?;
    ensure!(is_plain() || instance.pid() != before, "is another process");
    ensure!(fs::read_to_string(&file)? == "synced");
    fs::write(user.home.join("new"), "works")?;
    Ok(())
}

fn clean_stop(store: StoreKind) -> Result<()> {
    let mut instance = Instance::start(store)?;
    let user = instance.user()?;
    for number in 0..200 {
        fs::write(user.home.join(format!("f{number}")), vec![b'x'; number * 37])?;
    }
    instance.stop()?;
    instance.restart()?;
    for number in 0..200 {
        let length = fs::metadata(user.home.join(format!("f{number}")))?.len();
        ensure!(length == number * 37, "f{number} has {length} bytes");
    }
    instance.fsck_is_clean()
}

/// What the quota says must be what a walk over the tree counts.
fn quota_is_exact(instance: &Instance, home: &str, dir: &Path) -> Result<()> {
    if is_plain() {
        return Ok(());
    }
    let facts = instance.json(&["quota", home])?;
    let mut inodes = 0;
    let mut bytes = 0;
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata()?;
        inodes += 1;
        // No holes, links or attributes in this load: size is what is charged.
        bytes += if meta.is_file() { meta.len() } else { 0 };
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        }
    }
    ensure!(facts["inodes"] == inodes, "{inodes} inodes counted, quota says {facts}");
    ensure!(facts["bytes"] == bytes, "{bytes} bytes counted, quota says {facts}");
    Ok(())
}

/// Who may look into a home is known before it is opened, from its head.
fn stays_private(store: StoreKind) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut instance = Instance::start(store)?;
    let user = instance.user()?;
    let shows = |mode| -> Result<bool> { Ok(fs::metadata(&user.home)?.mode() & 0o7777 == mode) };
    for mode in [0o755, 0o700] {
        fs::set_permissions(&user.home, fs::Permissions::from_mode(mode))?;
        fs::File::open(&user.home)?.sync_all()?;
        // The head follows the fsync by one swap.
        std::thread::sleep(Duration::from_secs(2));
        instance.kill9();
        instance.restart()?;
        ensure!(shows(mode)?, "a closed home shows another mode than {mode:o}");
        fs::read_dir(&user.home)?.count();
        ensure!(shows(mode)?, "an open home shows another mode than {mode:o}");
    }
    Ok(())
}
