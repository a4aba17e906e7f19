//! Load: many writers, many open files, a store that stalls under them, clients that die, many
//! homes. The daemon's memory stays within what is promised, and it goes on afterwards.
//!
//! `make test` runs a part of each size, `make test-long` all of it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use yadokari_tests::instance::{Instance, Options};
use yadokari_tests::stores::StoreKind;
use yadokari_tests::user::User;
use yadokari_tests::{is_long, on_every_store, usage, wait};

on_every_store! {
    sixty_four_writers_of_big_files_take_little_memory => big_files;
    ten_thousand_open_files_take_little_memory => open_files;
    a_store_that_stalls_stops_writers_and_takes_little_memory => stalled_store;
    clients_that_hang_or_die_leave_nothing_behind => dying_clients;
    many_homes_take_what_the_busy_ones_need => many_homes;
    of_very_many_homes_those_stay_open_that_were_used_last => crowd_of_homes;
}

const WRITERS: u64 = 64;

/// Writes a file whose bytes follow from its number and their offset; nothing in it repeats.
fn write_big(path: &Path, number: u64, mib: u64, over: &AtomicBool) -> Result<u64> {
    let mut file = File::create(path)?;
    for at in 0..mib {
        if over.load(Ordering::Relaxed) {
            return Ok(at);
        }
        file.write_all(&big_content(number, at))?;
    }
    file.sync_all()?;
    Ok(mib)
}

/// One MiB of a big file.
fn big_content(number: u64, mib: u64) -> Vec<u8> {
    let from = (number << 44) + (mib << 17);
    let word = |at: u64| {
        let mixed = (at ^ (at >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).to_le_bytes()
    };
    (from..from + (1 << 17)).flat_map(word).collect()
}

fn check_big(path: &Path, number: u64, mib: u64) -> Result<()> {
    let mut file = File::open(path)?;
    let mut seen = vec![0; 1 << 20];
    for at in 0..mib {
        file.read_exact(&mut seen).with_context(|| path.display().to_string())?;
        ensure!(seen == big_content(number, at), "{}: MiB {at} differs", path.display());
    }
    Ok(())
}

fn big_files(store: StoreKind) -> Result<()> {
    let mib = if is_long() { 32 } else { 6 };
    let instance = Instance::start(store)?;
    let user = instance.bare_user()?;
    let never = AtomicBool::new(false);
    let path = |number: u64| user.home.join(format!("big{number}"));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let (path, never) = (path(number), &never);
                scope.spawn(move || write_big(&path, number, mib, never))
            })
            .collect();
        writers.into_iter().try_for_each(|w| w.join().expect("no panic").map(drop))
    })?;
    usage::stays_within_bounds(&instance, "while big files were written")?;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let path = path(number);
                scope.spawn(move || {
                    // From the store, not from what the kernel remembers.
                    rustix::fs::fadvise(
                        &File::open(&path)?,
                        0,
                        None,
                        rustix::fs::Advice::DontNeed,
                    )?;
                    check_big(&path, number, mib)
                })
            })
            .collect();
        readers.into_iter().try_for_each(|r| r.join().expect("no panic"))
    })?;
    usage::stays_within_bounds(&instance, "while they were read")?;
    usage::quota_is_exact(&instance, &user.name, &user.home)?;
    instance.fsck_is_clean()
}

fn open_files(store: StoreKind) -> Result<()> {
    const FILES: u64 = 10_000;
    /// Of all stores at once they would be more than a process may have open.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit })?;
    let instance = Instance::start(store)?;
    let user = instance.bare_user()?;
    let path = |number: u64| user.home.join(format!("open{number}"));
    let content = |number: u64| format!("content of {number} ").repeat(20);
    let mut files = Vec::new();
    for number in 0..FILES {
        let file = File::options().read(true).write(true).create_new(true).open(path(number))?;
        file.write_all_at(content(number).as_bytes(), 0)?;
        files.push(file);
    }
    let handles = instance.pid().map(usage::handles).transpose()?.unwrap_or(0);
    ensure!(handles < 1000, "the daemon has {handles} handles open");
    // Every second one loses its name, and stays as it is.
    for number in (0..FILES).step_by(2) {
        fs::remove_file(path(number))?;
    }
    for (file, number) in files.iter().zip(0..) {
        let mut seen = vec![0; content(number).len()];
        file.write_all_at(b"C", 0)?;
        file.read_exact_at(&mut seen, 0)?;
        let wanted = format!("C{}", &content(number)[1..]);
        ensure!(seen == wanted.as_bytes(), "open file {number} differs");
    }
    let charged = |instance: &Instance| -> Result<u64> {
        instance.json(&["quota", &user.name])?["inodes"].as_u64().context("inodes")
    };
    ensure!(charged(&instance)? == FILES + 1, "what is open counts, named or not");
    usage::stays_within_bounds(&instance, "with 10,000 open files")?;
    drop(files);
    wait::until("files without a name to be freed", Duration::from_secs(30), || {
        (charged(&instance).ok()? == FILES / 2 + 1).then_some(())
    })?;
    usage::quota_is_exact(&instance, &user.name, &user.home)?;
    instance.fsck_is_clean()
}

/// How long the store says nothing.
const STALL: Duration = Duration::from_secs(8);

fn stalled_store(store: StoreKind) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let switch = scratch.path().join("hang");
    let options = Options {
        environment: vec![("YADOKARI_TEST_HANG".into(), switch.display().to_string())],
        ..Options::default()
    };
    let instance = Instance::start_with(store, options)?;
    let (stuck, free) = (instance.bare_user()?, instance.bare_user()?);
    let over = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..4 * WRITERS)
        .map(|number| {
            let path = stuck.home.join(format!("big{number}"));
            let (over, written) = (Arc::clone(&over), Arc::clone(&written));
            std::thread::spawn(move || -> Result<u64> {
                let mut file = File::create(&path)?;
                for at in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return Ok(at);
                    }
                    file.write_all(&big_content(number, at))?;
                    written.fetch_add(1, Ordering::Relaxed);
                }
                Ok(0)
            })
        })
        .collect();
    let makers: Vec<_> = (0..MAKERS)
        .map(|maker| {
            let (dir, over) = (stuck.home.join(format!("small{maker}")), Arc::clone(&over));
            std::thread::spawn(move || make_small(&dir, &over))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    fs::write(&switch, format!("homes/{}/", stuck.name))?;
    std::thread::sleep(STALL / 2);
    let before = written.load(Ordering::Relaxed);
    let home = free.home.clone();
    wait::within("another home meanwhile", Duration::from_secs(20), move || {
        let mut file = File::create(home.join("f"))?;
        file.write_all(&big_content(1000, 0))?;
        Ok(file.sync_all()?)
    })?;
    std::thread::sleep(STALL / 2);
    ensure!(written.load(Ordering::Relaxed) == before, "writers went on without a store");
    usage::stays_within_bounds(&instance, "while the store hung")?;
    fs::remove_file(&switch)?;
    wait::until("writers to go on", Duration::from_secs(30), || {
        (written.load(Ordering::Relaxed) > before + WRITERS).then_some(())
    })?;
    over.store(true, Ordering::Relaxed);
    for (number, writer) in (0..).zip(writers) {
        let mib = writer.join().expect("no panic").with_context(|| format!("writer {number}"))?;
        check_big(&stuck.home.join(format!("big{number}")), number, mib)?;
    }
    let made = makers.into_iter().map(|maker| maker.join().expect("no panic"));
    let made: u64 = made.collect::<Result<Vec<u64>>>()?.into_iter().sum();
    eprintln!("{made} small files meanwhile");
    usage::stays_within_bounds(&instance, "after the store hung")?;
    usage::quota_is_exact(&instance, &stuck.name, &stuck.home)?;
    instance.fsck_is_clean()
}

/// Threads that make small files under a stall.
const MAKERS: u64 = 4;

fn make_small(dir: &Path, over: &AtomicBool) -> Result<u64> {
    fs::create_dir(dir)?;
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            return Ok(number);
        }
        // Without data, which would wait for the writers' room.
        File::create(dir.join(format!("f{number}")))?;
    }
    Ok(0)
}

/// A client in the middle of everything: locks, an open file without a name and with data that
/// nobody synced, half a listing, a shared mapping.
const CLIENT: &str = r#"
import fcntl, mmap, os, sys
os.chdir(sys.argv[1])
flocked, locked = open('flocked', 'w'), open('locked', 'w')
fcntl.flock(flocked, fcntl.LOCK_EX)
fcntl.lockf(locked, fcntl.LOCK_EX, 100, 50)
gone = open('gone%d' % os.getpid(), 'w+b')
gone.write(os.urandom(3 << 20)); gone.flush()
os.unlink(gone.name)
mapped = open('mapped', 'r+b')
view = mmap.mmap(mapped.fileno(), 0)
view[5:10] = b'hello'
half = os.scandir('many')
for _ in range(100): next(half)
os.mkdir('dir%d' % os.getpid()); inside = os.open('dir%d' % os.getpid(), os.O_RDONLY)
os.rmdir('dir%d' % os.getpid())
print('ready', flush=True)
while True: gone.seek(0); gone.write(os.urandom(1 << 20)); gone.flush()
"#;

/// Asks for both locks without waiting; 0 when it gets them.
const TRY_LOCKS: &str = "
import fcntl, sys
fcntl.flock(open('flocked', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)
fcntl.lockf(open('locked', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB, 100, 50)
";

fn dying_clients(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.bare_user()?;
    user.sh("mkdir many; (cd many; touch $(seq 2000)); head -c 100000 /dev/zero > mapped
             touch flocked locked; sync mapped")?;
    let count = instance.json(&["quota", &user.name])?;
    for killed_while_stopped in [false, true] {
        let mut client = start_client(&user)?;
        ensure!(user.try_sh(&format!("python3 -c \"{TRY_LOCKS}\""))?.code != 0, "no lock is held");
        let held = instance.json(&["quota", &user.name])?;
        let more = |what: &str| Some(held[what].as_u64()? - count[what].as_u64()?);
        ensure!(more("bytes") >= Some(3 << 20), "charged while it is open: {held}");
        ensure!(more("inodes") == Some(2), "a file and a directory without names: {held}");
        let pid = rustix::process::Pid::from_child(&client);
        if killed_while_stopped {
            // Hanging, it holds what it holds, and hinders nobody else.
            rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
            user.sh(
                "ls many | wc -l; echo more > more; sync more; mv more many/1; cat mapped | wc -c",
            )?;
        }
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        client.wait()?;
        wait::until("locks to be free", Duration::from_secs(10), || {
            let said = user.try_sh(&format!("python3 -c \"{TRY_LOCKS}\"")).ok()?;
            (said.code == 0).then_some(())
        })?;
        let limit = u64::from(killed_while_stopped) * 5;
        wait::until("what it had open to be freed", Duration::from_secs(30), || {
            let now = instance.json(&["quota", &user.name]).ok()?;
            let bytes = now["bytes"].as_u64()?.checked_sub(count["bytes"].as_u64()?)?;
            (now["inodes"] == count["inodes"] && bytes == limit).then_some(())
        })?;
        let mapped = user.sh("head -c 12 mapped | tail -c 7 | tr '\\0' .")?;
        ensure!(mapped == "hello..", "what it wrote by its mapping: {mapped:?}");
    }
    usage::quota_is_exact(&instance, &user.name, &user.home)?;
    instance.fsck_is_clean()
}

fn start_client(user: &User) -> Result<Child> {
    let mut command = user.command("python3");
    command.args(["-c", CLIENT]).arg(&user.home);
    let mut client = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(client.stdout.take().context("piped")?);
    let heard = wait::within("the client's start", Duration::from_secs(60), move || {
        let mut line = String::new();
        said.read_line(&mut line)?;
        Ok(line)
    });
    let ready = heard.as_ref().is_ok_and(|line| line == "ready\n");
    if !ready {
        let _ = client.kill();
        let _ = client.wait();
    }
    ensure!(ready, "the client says {heard:?}");
    Ok(client)
}

/// Homes that nothing used for so long are closed, in this test.
const IDLE: Duration = Duration::from_secs(3);
/// An idle home opens again at the first look within this, by the issue's own words.
const REOPEN_MAX: Duration = Duration::from_millis(200);

fn many_homes(store: StoreKind) -> Result<()> {
    let (homes, busy, busy_for) = if is_long() { (500, 50, 60) } else { (60, 8, 8) };
    let options = Options {
        environment: vec![("YADOKARI_TIMING_IDLE".into(), format!("{}s", IDLE.as_secs()))],
        ..Options::default()
    };
    let instance = Instance::start_with(store, options)?;
    let pid = instance.pid().context("it runs")?;
    let path = |number: usize| instance.mount.join(format!("h{number:03}"));
    for number in 0..homes {
        instance.ok(&["home", "create", &format!("h{number:03}"), "--owner", "root"])?;
        fs::write(path(number).join("file"), format!("of {number}"))?;
    }
    let open = |instance: &Instance| -> Result<u64> {
        instance.json(&["status"])?["homes_open"].as_u64().context("homes_open")
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        for number in 0..busy {
            let (dir, over) = (path(number), &over);
            scope.spawn(move || keep_busy(&dir, over));
        }
        let watched = watch(&instance, pid, busy as u64, Duration::from_secs(busy_for), &open);
        over.store(true, Ordering::Relaxed);
        watched
    })?;
    wait::until("all homes to be closed", IDLE * 10, || {
        (open(&instance).ok()? == 0).then_some(())
    })?;
    // The first look into each, with nothing of it in the kernel's memory but its name.
    let mut took = Vec::new();
    for number in 0..homes {
        let started = Instant::now();
        let read = fs::read_to_string(path(number).join("file"))?;
        took.push(started.elapsed());
        ensure!(read == format!("of {number}"), "home {number} holds {read:?}");
    }
    took.sort_unstable();
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    eprintln!("first look into an idle home: {median:?}, at worst {worst:?}");
    // One that met a busy moment of the machine says nothing; most do.
    ensure!(median < REOPEN_MAX && took[took.len() * 9 / 10] < 2 * REOPEN_MAX, "{took:?}");
    usage::stays_within_bounds(&instance, "with all homes open again")?;
    instance.fsck_is_clean()
}

/// Homes that stay open though nothing uses them, and some more.
const CROWD: usize = 128 + 12;

/// With the usual settings a home stays open for minutes, but not every one of a crowd.
fn crowd_of_homes(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let name = |number: usize| format!("c{number:03}");
    for number in 0..CROWD {
        instance.ok(&["home", "create", &name(number), "--owner", "root"])?;
        fs::write(instance.mount.join(name(number)).join("file"), name(number))?;
    }
    let open = || instance.json(&["status"]).ok()?["homes_open"].as_u64();
    wait::until("some homes to be closed", Duration::from_secs(60), || {
        (open()? <= 128).then_some(())
    })?;
    let still = open().context("homes_open")?;
    ensure!(still == 128, "{still} homes are open");
    for number in 0..CROWD {
        let read = fs::read_to_string(instance.mount.join(name(number)).join("file"))?;
        ensure!(read == name(number), "{} holds {read:?}", name(number));
    }
    usage::stays_within_bounds(&instance, "with a crowd of homes")
}

fn keep_busy(dir: &Path, over: &AtomicBool) -> Result<()> {
    for number in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let mut file = File::create(dir.join(format!("f{}", number % 500)))?;
        file.write_all(&big_content(number, 0)[..10_000])?;
        if number.is_multiple_of(16) {
            file.sync_all()?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Idle homes close, busy ones stay; threads, handles and memory are then the same all the time.
fn watch(
    instance: &Instance,
    pid: u32,
    busy: u64,
    time: Duration,
    open: &dyn Fn(&Instance) -> Result<u64>,
) -> Result<()> {
    wait::until("idle homes to be closed", IDLE * 10, || {
        (open(instance).ok()? <= busy).then_some(())
    })?;
    let (threads, handles) = (usage::threads(pid)?, usage::handles(pid)?);
    let resident = usage::resident_mib(pid)?;
    let deadline = Instant::now() + time;
    let (mut threads_most, mut handles_most) = (threads, handles);
    while Instant::now() < deadline {
        threads_most = threads_most.max(usage::threads(pid)?);
        handles_most = handles_most.max(usage::handles(pid)?);
        std::thread::sleep(Duration::from_millis(100));
    }
    let now = usage::resident_mib(pid)?;
    eprintln!(
        "threads {threads} to {threads_most}, handles {handles} to {handles_most}, \
         resident {resident} to {now} MiB"
    );
    ensure!(open(instance)? == busy, "{} homes are open", open(instance)?);
    ensure!(threads_most <= threads + 64, "threads rose from {threads} to {threads_most}");
    ensure!(handles_most <= handles + 256, "handles rose from {handles} to {handles_most}");
    usage::stays_within_bounds(instance, "with some of many homes busy")
}
