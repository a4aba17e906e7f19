//! Mounts: what a stall of one home's store reaches, and one home mounted elsewhere.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use yadokari_tests::instance::{Instance, Options};
use yadokari_tests::stores::StoreKind;
use yadokari_tests::{on_every_store, process, wait};

on_every_store! {
    a_store_that_hangs_for_one_home_stalls_no_other => stall;
    a_user_mounts_the_home_elsewhere_and_unmounts_it => mounted_elsewhere;
    direct_reads_and_writes_of_any_alignment_meet_the_buffered_ones => direct;
}

/// Waits for a lock of each family, in turn with whoever holds it, and is interrupted; prints what
/// happened. A wait of the other family would be granted at once.
const LOCKS: &str = r#"
import fcntl, os, signal, subprocess, sys, time
path = sys.argv[1]
open(path, 'w').close()
HOLD = "import fcntl,sys,time; f=open(sys.argv[1],'r+'); fcntl.%s; print('held',flush=True); time.sleep(60)"
calls = {'flock': 'flock(f, fcntl.LOCK_EX)', 'fcntl': 'lockf(f, fcntl.LOCK_EX)'}
class Rung(Exception): pass
def ring(*_): raise Rung
signal.signal(signal.SIGALRM, ring)
for family in calls:
    holder = subprocess.Popen([sys.executable, '-c', HOLD % calls[family], path], stdout=subprocess.PIPE)
    holder.stdout.readline()
    f = open(path, 'r+')
    for other in calls:
        take = {'flock': fcntl.flock, 'fcntl': fcntl.lockf}[other]
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            take(f, fcntl.LOCK_EX); print(family, other, 'granted')
        except Rung:
            print(family, other, 'interrupted')
        signal.setitimer(signal.ITIMER_REAL, 0)
    waiter = subprocess.Popen([sys.executable, '-c', HOLD % calls[family], path], stdout=subprocess.PIPE)
    time.sleep(0.3)
    f.close()
    killed = subprocess.Popen([sys.executable, '-c', HOLD % calls[family], path], stdout=subprocess.PIPE)
    time.sleep(0.3)
    killed.kill(); killed.wait()
    holder.kill(); holder.wait()
    print(family, 'then', waiter.stdout.readline().decode().strip())
    waiter.kill(); waiter.wait()
"#;

/// On a mount that nodes share, where the kernel leaves locks to the daemon.
#[test]
fn locks_of_a_nodes_mount_keep_families_apart_wait_and_end_by_signals() -> Result<()> {
    let options = Options { node: true, ..Options::default() };
    let instance = Instance::start_with(StoreKind::File, options)?;
    let user = instance.user()?;
    let script = instance.beside().join("locks.py");
    fs::write(&script, LOCKS)?;
    let said = user.sh(&format!("timeout 60 python3 {} locked", script.display()))?;
    let expected = "flock flock interrupted\nflock fcntl granted\nflock then held\n\
                    fcntl flock granted\nfcntl fcntl interrupted\nfcntl then held\n";
    ensure!(said == expected, "{said}");
    Ok(())
}

/// The store hangs for one home under readers and mmap writers; another reads cold meanwhile.
fn stall(store: StoreKind) -> Result<()> {
    const READERS: usize = 64;
    let scratch = tempfile::tempdir()?;
    let switch = scratch.path().join("hang");
    let options = Options {
        environment: vec![("YADOKARI_TEST_HANG".into(), switch.display().to_string())],
        ..Options::default()
    };
    let mut instance = Instance::start_with(store, options)?;
    let (stuck, free) = (instance.user()?, instance.user()?);
    for user in [&stuck, &free] {
        user.sh(
            "for n in $(seq 70); do head -c 200000 /dev/urandom > f$n; done; mkdir d; touch d/x",
        )?;
    }
    // Cold: nothing of either home is in any cache.
    instance.stop()?;
    instance.restart()?;
    for user in [&stuck, &free] {
        ensure!(fs::read_dir(&user.home)?.count() > 70);
    }
    fs::write(&switch, format!("homes/{}/", stuck.name))?;
    std::thread::sleep(Duration::from_millis(300));
    for number in 1..=READERS {
        let path = stuck.home.join(format!("f{number}"));
        // Left behind when the test ends: the mount's end releases them.
        std::thread::spawn(move || fs::read(path));
    }
    let mapped = stuck.home.join("f65");
    std::thread::spawn(move || map_and_change(&mapped));
    std::thread::sleep(Duration::from_millis(500));
    let (home, mount) = (free.home.clone(), instance.mount.clone());
    wait::within("the other home and df", Duration::from_secs(20), move || {
        for number in 1..=70 {
            ensure!(fs::read(home.join(format!("f{number}")))?.len() == 200_000);
        }
        let file = home.join("new");
        fs::write(&file, "written")?;
        fs::File::open(&file)?.sync_all()?;
        process::sh(&format!(
            "df {0} {1} >/dev/null; ls -l {0} >/dev/null",
            mount.display(),
            home.display()
        ))?;
        Ok(())
    })?;
    // What is cached of the stuck home answers too.
    let home = stuck.home.clone();
    wait::within("ls and df of what is cached", Duration::from_secs(10), move || {
        ensure!(fs::metadata(&home)?.is_dir());
        process::sh(&format!("df {} >/dev/null", home.display())).map(drop)
    })?;
    fs::remove_file(&switch)?;
    let home = stuck.home.clone();
    wait::within("the stuck home after the store is back", Duration::from_secs(30), move || {
        for number in 1..=70 {
            ensure!(fs::read(home.join(format!("f{number}")))?.len() == 200_000);
        }
        Ok(())
    })
}

fn map_and_change(path: &Path) -> Result<()> {
    process::ok(std::process::Command::new("/usr/bin/python3").args([
        "-c",
        "import mmap, sys\nf = open(sys.argv[1], 'r+b')\nm = mmap.mmap(f.fileno(), 0)\nm[70000:70010] = b'0123456789'\nm.flush()",
    ]).arg(path))
    .map(drop)
}

fn mounted_elsewhere(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    user.sh("echo here > file")?;
    let place = instance.beside().join("place");
    fs::create_dir(&place)?;
    std::os::unix::fs::chown(&place, Some(user.uid), Some(user.gid))?;
    let program = instance.users_program()?;
    let call = format!("{} --data {}", program.display(), instance.data().display());
    let shown = place.display();
    user.sh(&format!(
        "{call} mount {} {shown}; test $(cat {shown}/file) = here; echo there > {shown}/other\n\
         test $(cat ~/other) = there",
        user.name
    ))
    .context("through the daemon")?;
    user.sh(&format!("{call} umount {shown}; ! test -e {shown}/file"))?;
    let said = user.try_sh(&format!("{call} umount {shown}"))?;
    ensure!(said.code == 3, "{said:?}");
    Ok(())
}

/// O_DIRECT and ordinary access to one file see each other's bytes.
fn direct(store: StoreKind) -> Result<()> {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    let path = user.home.join("f");
    let open = |flags| {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(flags).open(&path)
    };
    let (direct, plain) = (open(libc::O_DIRECT)?, open(0)?);
    let mut expected = vec![0_u8; 3 << 20];
    let spans = [(0, 4096), (1, 511), (4095, 2), (100_000, 1 << 20), (2_000_000, 333_333)];
    for (round, &(offset, len)) in spans.iter().cycle().take(spans.len() * 4).enumerate() {
        let data: Vec<u8> = (0..len).map(|n| ((n * 31 + round * 7) % 251) as u8).collect();
        let (writer, reader) = if round % 2 == 0 { (&direct, &plain) } else { (&plain, &direct) };
        writer.write_all_at(&data, offset as u64)?;
        expected[offset..offset + len].copy_from_slice(&data);
        let size = usize::try_from(plain.metadata()?.len())?;
        // Wide enough to meet what earlier rounds left around it.
        let from = offset.saturating_sub(777);
        let mut seen = vec![0; (len + 1554).min(size - from)];
        reader.read_exact_at(&mut seen, from as u64)?;
        ensure!(seen == expected[from..from + seen.len()], "round {round} at {offset}, {len}");
    }
    let size = usize::try_from(plain.metadata()?.len())?;
    ensure!(fs::read(&path)? == expected[..size]);
    Ok(())
}
