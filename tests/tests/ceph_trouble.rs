//! A mounted home while its Ceph cluster is in trouble, on clusters of the tests' own: I/O waits
//! and goes on, or fails with the right errno in time; what needs no store stays quick; `status`
//! says what is wrong; and afterwards everything is there, with no remount and no restart.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use yadokari_tests::ceph::{self, Ceph};
use yadokari_tests::instance::{Instance, Options};
use yadokari_tests::trouble::{Log, Looks, check_log};
use yadokari_tests::user::User;
use yadokari_tests::{is_long, process, wait};

/// How long a part of the cluster is away.
const AWAY: Duration = Duration::from_secs(10);
const AWAY_LONG: Duration = Duration::from_secs(60);
const CUT_LONG: Duration = Duration::from_secs(30);
/// What one renewal of the heartbeat carries.
const LEASE: Duration = Duration::from_secs(16);
/// What is answered from memory, on a busy machine.
const QUICK: Duration = Duration::from_secs(5);
/// From when the cluster is whole again until work goes on: connections back off meanwhile.
const BACK_MAX: Duration = Duration::from_secs(120);
/// Until a trouble shows in `status`.
const SAID_MAX: Duration = Duration::from_secs(60);
/// Files of the directory that is listed.
const LISTED: usize = 200;

fn away() -> Duration {
    if is_long() { AWAY_LONG } else { AWAY }
}

/// A cluster, a daemon on it, and two homes. Dropped in this order.
struct Scene {
    instance: Instance,
    ada: User,
    bob: User,
    ceph: Ceph,
}

impl Scene {
    fn start(ceph: Ceph, store: &str, options: Options) -> Result<Self> {
        let instance = Instance::start_on(store, options)?;
        let (ada, bob) = (instance.user()?, instance.user()?);
        ada.sh(&format!("mkdir dir; for i in $(seq {LISTED}); do echo $i > dir/$i; done"))?;
        bob.sh("echo bob > file; mkdir dir; touch dir/x")?;
        instance.ok(&["sync"])?;
        let scene = Self { instance, ada, bob, ceph };
        scene.look()?;
        Ok(scene)
    }

    fn simple(options: &ceph::Options) -> Result<Self> {
        let ceph = Ceph::start_with(options)?;
        let store = ceph.url("homes");
        Self::start(ceph, &store, Options::default())
    }

    /// Has everything that is looked at later looked at once.
    fn look(&self) -> Result<()> {
        ensure!(fs::read_dir(&self.instance.mount)?.count() == 2);
        list(&self.ada.home.join("dir"))?;
        list(&self.bob.home.join("dir"))?;
        fs::read(self.bob.home.join("file"))?;
        Ok(())
    }

    /// What must stay quick while the store is away.
    fn looks(&self) -> Looks {
        let (ada, bob) = (self.ada.home.clone(), self.bob.home.clone());
        let (mount, dir, room) = (self.instance.mount.clone(), ada.join("dir"), ada.clone());
        let status = self.status_command();
        Looks::start(vec![
            (
                "df of a home",
                Box::new(move || {
                    rustix::fs::statvfs(&room)?;
                    Ok(())
                }),
            ),
            ("ls -l of a directory that was listed before", Box::new(move || list(&dir))),
            (
                "ls of all homes",
                Box::new(move || {
                    ensure!(fs::read_dir(&mount)?.count() == 2);
                    Ok(())
                }),
            ),
            (
                "another home",
                Box::new(move || {
                    list(&bob.join("dir"))?;
                    ensure!(fs::read(bob.join("file"))? == b"bob\n");
                    Ok(())
                }),
            ),
            (
                "status",
                Box::new(move || {
                    let mut command = Command::new(&status[0]);
                    process::ok(command.args(&status[1..])).map(drop)
                }),
            ),
        ])
    }

    fn status_command(&self) -> Vec<String> {
        let command = self.instance.command(&["status", "--json"]);
        let words = [command.get_program()].into_iter().chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    fn log(&self) -> Result<Log> {
        let log = Log::start(&self.ada.home.join("log"))?;
        log.wait_for_more(5, BACK_MAX)?;
        Ok(log)
    }

    /// Waits until `status` says one line with one of these words.
    fn says(&self, words: &[&str]) -> Result<String> {
        let mut last = String::new();
        let said = wait::until("a trouble in status", SAID_MAX, || {
            let status = self.instance.json(&["status"]).ok()?;
            let homes = status["homes_in_trouble"].as_array().cloned().unwrap_or_default();
            let troubles = homes.iter().map(|home| &home["trouble"]).chain([&status["trouble"]]);
            let lines: Vec<_> = troubles.filter_map(|line| line.as_str()).collect();
            last = lines.join("\n");
            let said = lines.iter().find(|line| words.iter().any(|word| line.contains(word)));
            said.map(|line| (*line).to_owned())
        });
        let said = said.with_context(|| format!("status said {last:?}, not {words:?}"))?;
        ensure!(!said.contains('\n'), "more than one line: {said}");
        eprintln!("status: {said}");
        Ok(said)
    }

    /// Waits until `status` knows of no trouble.
    fn is_well(&self) -> Result<()> {
        let mut last = String::new();
        let well = wait::until("status without trouble", BACK_MAX, || {
            let status = self.instance.json(&["status"]).ok()?;
            last = status.to_string();
            let homes = status["homes_in_trouble"].as_array().is_none_or(Vec::is_empty);
            (status["trouble"].is_null() && homes).then_some(())
        });
        well.with_context(|| last)
    }

    /// The log went on to the end without an error, everything is there, on the mount and,
    /// without what the daemon remembers, in the store.
    fn ends_whole(mut self, log: Log) -> Result<()> {
        log.wait_for_more(5, BACK_MAX)?;
        self.is_well()?;
        let path = log.path().to_owned();
        let (acknowledged, error) = log.end()?;
        ensure!(error.is_none(), "the log ended with {error:?}");
        check_log(&path, acknowledged)?;
        self.instance.fsck_is_clean()?;
        self.instance.kill9();
        self.instance.restart()?;
        check_log(&path, acknowledged)?;
        list(&self.ada.home.join("dir"))?;
        self.instance.fsck_is_clean()
    }
}

/// `ls -l`.
fn list(dir: &Path) -> Result<()> {
    let mut lines = 0;
    for entry in fs::read_dir(dir)? {
        let metadata = entry?.metadata()?;
        ensure!(metadata.ino() > 0);
        lines += 1;
    }
    ensure!(lines == LISTED || lines == 1, "{lines} lines");
    Ok(())
}

#[test]
fn work_waits_for_a_frozen_osd_and_goes_on() -> Result<()> {
    let scene = Scene::simple(&ceph::Options::to_be_paused())?;
    let log = scene.log()?;
    scene.ceph.pause_osd(0)?;
    let frozen = Instant::now();
    let looks = scene.looks();
    scene.says(&["does not answer"])?;
    // Longer than the lease, so that the home is not its own for certain any more.
    std::thread::sleep(away().max(LEASE * 5 / 4).saturating_sub(frozen.elapsed()));
    ensure!(!log.has_ended(), "the log did not wait");
    looks.end(QUICK)?;
    scene.ceph.resume_osd(0)?;
    scene.ends_whole(log)
}

#[test]
fn work_waits_for_an_osd_that_was_killed_and_goes_on() -> Result<()> {
    let scene = Scene::simple(&ceph::Options { bluestore: true, ..ceph::Options::default() })?;
    let log = scene.log()?;
    scene.ceph.kill_osd(0)?;
    let looks = scene.looks();
    std::thread::sleep(away());
    ensure!(!log.has_ended(), "the log did not wait");
    looks.end(QUICK)?;
    scene.ceph.start_osd(0)?;
    scene.ends_whole(log)
}

#[test]
fn what_waits_longer_than_configured_fails_with_eio_and_the_next_works() -> Result<()> {
    let ceph = Ceph::start_with(&ceph::Options::to_be_paused())?;
    let store = ceph.url("homes");
    let environment = vec![("YADOKARI_TIMING_STORE_TIMEOUT".to_owned(), "5s".to_owned())];
    let scene = Scene::start(ceph, &store, Options { environment, ..Options::default() })?;
    let log = scene.log()?;
    scene.ceph.pause_osd(0)?;
    let frozen = Instant::now();
    let (acknowledged, error) = log.end_by_error()?;
    ensure!(error == Some(libc::EIO), "after {:?}: {error:?}", frozen.elapsed());
    ensure!(frozen.elapsed() < Duration::from_secs(30), "EIO after {:?}", frozen.elapsed());
    scene.ceph.resume_osd(0)?;
    // What was written and not acknowledged may be there, in its place; nothing is missing.
    let again = scene.ada.home.join("again");
    wait::until("a sync that works", BACK_MAX, || {
        let synced = File::create(&again).and_then(|mut file| {
            file.write_all(b"again")?;
            file.sync_all()
        });
        synced.ok()
    })?;
    check_log(&scene.ada.home.join("log"), acknowledged)?;
    let log = Log::start(&scene.ada.home.join("log2"))?;
    scene.ends_whole(log)
}

#[test]
fn work_goes_on_without_the_monitor() -> Result<()> {
    let scene = Scene::simple(&ceph::Options::default())?;
    let log = scene.log()?;
    scene.ceph.stop_mon()?;
    let (stopped, looks) = (Instant::now(), scene.looks());
    log.wait_for_more(20, QUICK * 4)?;
    scene.says(&["free space"])?;
    std::thread::sleep(away().saturating_sub(stopped.elapsed()));
    log.wait_for_more(20, QUICK * 4)?;
    looks.end(QUICK)?;
    scene.ceph.start_mon()?;
    scene.ends_whole(log)
}

#[test]
fn a_full_pool_is_enospc_takes_deletes_and_works_on_when_there_is_room() -> Result<()> {
    let scene = Scene::simple(&ceph::Options::default())?;
    let home = &scene.ada.home;
    let write = |name: &str| {
        // What the home has already would not be stored again.
        let noise = noise(1 << 20);
        let mut file = File::create(home.join(name))?;
        file.write_all(&noise)?;
        file.sync_all().map(|()| noise)
    };
    let before = write("before")?;
    scene.ceph.set_full(true)?;
    // The flag takes some seconds; nothing may hang meanwhile.
    let mut number = 0;
    let error = wait::until("the pool to be full", SAID_MAX, || {
        number += 1;
        let (started, done) = (Instant::now(), write(&format!("filler{number}")));
        assert!(started.elapsed() < QUICK * 2, "a write took {:?}", started.elapsed());
        done.err()
    })?;
    ensure!(error.raw_os_error() == Some(libc::ENOSPC), "{error}");
    let looks = scene.looks();
    scene.says(&["no space", "full"])?;
    let started = Instant::now();
    let refused = write("refused").err().and_then(|error| error.raw_os_error());
    ensure!(refused == Some(libc::ENOSPC), "{refused:?}");
    ensure!(started.elapsed() < QUICK, "ENOSPC took {:?}", started.elapsed());
    // What was acknowledged is read, and goes when it is told to, for good.
    ensure!(fs::read(home.join("before"))? == before);
    let started = Instant::now();
    fs::remove_file(home.join("before"))?;
    File::open(home)?.sync_all()?;
    ensure!(started.elapsed() < QUICK * 2, "deleting took {:?}", started.elapsed());
    looks.end(QUICK)?;
    scene.ceph.set_full(false)?;
    let after = wait::until("room", BACK_MAX, || write("after").ok())?;
    ensure!(fs::read(home.join("after"))? == after && !home.join("before").exists());
    let log = scene.log()?;
    scene.ends_whole(log)
}

#[test]
fn a_blocklisted_daemon_comes_back_as_a_new_client() -> Result<()> {
    let ceph = Ceph::start()?;
    let keyring = ceph.add_client("node1", &["mon", "allow r", "osd", "allow rw"])?;
    let conf = ceph.conf();
    let (conf, keyring) = (conf.display(), keyring.display());
    let store = format!("rados://node1@data/homes?conf={conf}&meta_pool=meta&keyring={keyring}");
    let scene = Scene::start(ceph, &store, Options::default())?;
    let log = scene.log()?;
    for _ in 0..if is_long() { 5 } else { 2 } {
        let looks = scene.looks();
        let known = scene.ceph.blocklist("node1")?;
        ensure!(known > 0, "the daemon is no client of the cluster");
        log.wait_for_more(20, BACK_MAX)?;
        ensure!(!log.has_ended(), "the log met an error");
        // What is not in memory is read by the new client too.
        scene.ada.sh("echo more > more; sync more; rm more")?;
        looks.end(QUICK)?;
    }
    ensure!(scene.instance.log().contains("blocklisted"), "{}", scene.instance.log_tail());
    scene.ends_whole(log)
}

/// A network namespace with one cable to this one.
struct Network {
    name: String,
    cable: String,
    address: String,
}

impl Network {
    fn new() -> Result<Self> {
        let number: u8 = rand::random();
        let (name, cable) = (format!("yk{}", std::process::id()), format!("yk{number}v"));
        let address = format!("10.213.{number}.1");
        let network = Self { name, cable, address };
        let Self { name, cable, address } = &network;
        process::sh(&format!(
            "ip netns add {name}
             ip link add {cable}0 type veth peer name {cable}1 netns {name}
             ip addr add {address}/24 dev {cable}0
             ip link set {cable}0 up
             ip -n {name} addr add 10.213.{number}.2/24 dev {cable}1
             ip -n {name} link set {cable}1 up
             ip -n {name} link set lo up"
        ))?;
        Ok(network)
    }

    /// The other end goes down; this one, where the cluster listens, only sees no carrier.
    fn set_up(&self, up: bool) -> Result<()> {
        let (Self { name, cable, .. }, up) = (self, if up { "up" } else { "down" });
        process::sh(&format!("ip -n {name} link set {cable}1 {up}")).map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = process::sh(&format!("ip link del {}0; ip netns del {}", self.cable, self.name));
    }
}

#[test]
fn work_waits_for_a_network_that_was_cut_and_goes_on() -> Result<()> {
    let network = Network::new()?;
    let address = network.address.clone();
    let ceph = Ceph::start_with(&ceph::Options { address, ..ceph::Options::default() })?;
    let store = ceph.url("homes");
    // Of the network alone: its mounts are seen here.
    let through = ["nsenter".to_owned(), format!("--net=/run/netns/{}", network.name)];
    let through = through.to_vec();
    let scene = Scene::start(ceph, &store, Options { through, ..Options::default() })?;
    let log = scene.log()?;
    network.set_up(false)?;
    let (cut, looks) = (Instant::now(), scene.looks());
    scene.says(&["does not answer"])?;
    let away = if is_long() { CUT_LONG } else { AWAY };
    std::thread::sleep(away.saturating_sub(cut.elapsed()));
    ensure!(!log.has_ended(), "the log did not wait");
    looks.end(QUICK)?;
    network.set_up(true)?;
    scene.ends_whole(log)
}

/// Bytes that no compression makes small.
fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|_| rand::random()).collect()
}
