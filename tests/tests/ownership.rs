//! One home has one owner: a living one is named and left alone, a dead one is followed, and one
//! that lost a home keeps nothing of it.
//!
//! Two daemons with data directories of their own serve one store on this machine. How an owner
//! takes over between machines is the same but for the look at its process, which `fs` tests in
//! a time of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use yadokari_tests::instance::{Instance, Options, binary, is_mounted};
use yadokari_tests::process::{self, Said};
use yadokari_tests::stores::StoreKind;
use yadokari_tests::trouble::{Log, check_log};
use yadokari_tests::user::User;
use yadokari_tests::{is_long, on_every_store, wait};

/// What an owner's heartbeat is watched for before it counts as dead.
const TTL: Duration = Duration::from_secs(20);
/// The end of an owner, a takeover and the opening behind it, on a busy machine.
const TAKEN_MAX: Duration = Duration::from_secs(90);
/// What is there at once waits for no heartbeat.
const AT_ONCE: Duration = Duration::from_secs(15);

on_every_store! {
    a_living_owner_is_named_to_all_others_and_keeps_its_home => living_owner;
    the_home_of_a_daemon_that_was_killed_is_there_at_once => killed_owner;
    a_daemon_that_was_stopped_loses_its_home_after_the_expiry_and_says_so => stopped_owner;
    a_daemon_whose_home_was_taken_over_keeps_nothing_and_says_so => taken_over;
    a_daemon_whose_heartbeat_cannot_reach_the_store_acknowledges_nothing => cut_off;
}

/// A daemon with a home and its user, and where another one would show the home.
struct Scene {
    one: Instance,
    user: User,
}

impl Scene {
    fn start(store: StoreKind, options: Options) -> Result<Self> {
        let one = Instance::start_with(store, options)?;
        let user = one.user()?;
        user.sh("echo kept > kept; mkdir dir; sync kept dir .")?;
        Ok(Self { one, user })
    }

    /// A second daemon on the same store.
    fn another(&self, take_over: bool) -> Result<Instance> {
        let arguments = if take_over { vec!["--take-over".to_owned()] } else { Vec::new() };
        Instance::start_on(&self.one.store, Options { arguments, ..Options::default() })
    }

    /// The home, as another daemon shows it.
    fn home_at(&self, daemon: &Instance) -> PathBuf {
        daemon.mount.join(&self.user.name)
    }

    /// `yadokari …` of an administrator who only knows the store.
    fn offline(&self, arguments: &[&str]) -> Result<Said> {
        process::run(&mut self.offline_command(arguments))
    }

    fn offline_command(&self, arguments: &[&str]) -> Command {
        let data = self.one.beside().join("offline");
        let mut command = Command::new(binary());
        command.arg("--data").arg(data).args(arguments).env("YADOKARI_STORE", &self.one.store);
        command
    }

    /// Waits until the first daemon serves the home again.
    fn is_back(&self) -> Result<()> {
        wait::until("the home back at its owner", TAKEN_MAX, || {
            let said = self.user.try_sh("echo back > back && sync back && cat kept").ok()?;
            (said.code == 0).then_some(())
        })
    }

    /// Wants a sentence that names the first daemon: its node, its process, and since when.
    fn names_owner(&self, what: &str, text: &str) -> Result<()> {
        let node = process::ok(&mut Command::new("hostname"))?;
        let pid = self.one.pid().context("it runs")?;
        let home = format!("home {}", self.user.name);
        for part in [&home, node.trim(), &format!("process {pid}"), "since 2", "--take-over"] {
            ensure!(text.contains(part), "{what} does not say {part:?}: {text}");
        }
        Ok(())
    }
}

fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().map(|error| error.raw_os_error().unwrap_or(0))
}

/// What a daemon that lost a home may answer.
fn is_loss(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::EIO | libc::ESTALE))
}

/// Reads a file as soon as the daemon lets; gives how long that took.
fn read_within(path: &Path, limit: Duration) -> Result<(String, Duration)> {
    let started = Instant::now();
    let mut last = None;
    let read = wait::until("the home of the next owner", limit, || {
        let path = path.to_owned();
        let read = wait::within("a read", limit, move || Ok(fs::read_to_string(path)));
        match read.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(text) => Some(text),
            Err(error) => {
                last = Some(error);
                std::thread::sleep(Duration::from_millis(200));
                None
            }
        }
    });
    let text = read.with_context(|| format!("the last error: {last:?}"))?;
    Ok((text, started.elapsed()))
}

fn living_owner(store: StoreKind) -> Result<()> {
    let scene = Scene::start(store, Options::default())?;
    let (one, name) = (&scene.one, scene.user.name.as_str());
    let two = scene.another(false)?;
    // The second daemon shows that there is such a home, and gives out nothing of it.
    let home = scene.home_at(&two);
    ensure!(is_loss(errno(fs::read(home.join("kept")))), "the second daemon read the home");
    ensure!(is_loss(errno(fs::write(home.join("foreign"), "x"))), "it wrote to the home");
    scene.names_owner("the second daemon's log", &two.log())?;
    let status = two.ok(&["status"])?;
    scene.names_owner("the second daemon's status", &status)?;
    for refused in [vec!["fsck", name], vec!["home", "snapshot", "create", name]] {
        let said = two.run(&refused)?;
        ensure!(said.code == 4, "{refused:?} by the second daemon: {said:?}");
        scene.names_owner(&format!("{refused:?}"), &said.err)?;
    }
    // So is a repair, and a mount without a daemon.
    let said = scene.offline(&["fsck", name, "--repair"])?;
    ensure!(said.code == 4, "a repair of a home in use: {said:?}");
    scene.names_owner("the repair", &said.err)?;
    let dir = one.beside().join("private");
    fs::create_dir(&dir)?;
    let said = scene.offline(&["mount", name, &dir.display().to_string()])?;
    ensure!(said.code == 4 && !is_mounted(&dir)?, "a private mount: {said:?}");
    scene.names_owner("the private mount", &said.err)?;
    let said = one.run(&["fsck", name, "--repair"])?;
    let pid = one.pid().context("it runs")?;
    ensure!(said.code == 4 && said.err.contains(&format!("process {pid}")), "its own: {said:?}");
    // What only reads disturbs nobody.
    for safe in [vec!["fsck", name], vec!["home", "show", name], vec!["quota", name]] {
        let said = scene.offline(&safe)?;
        ensure!(said.code == 0, "{safe:?} beside the owner: {said:?}");
    }
    let said = scene.offline(&["home", "list"])?;
    ensure!(said.code == 0 && said.out.contains(name), "a list beside the owner: {said:?}");
    // And the owner has noticed nothing.
    scene.user.sh("cat kept; echo more > more; sync more; rm more")?;
    ensure!(!one.log().contains("took this home"), "{}", one.log_tail());
    one.fsck_is_clean()?;
    // Who insists gets it, and the owner has it again when that is done.
    let said = scene.offline(&["fsck", name, "--repair", "--take-over"])?;
    ensure!(said.code == 0, "a repair that takes over: {said:?}");
    scene.is_back()?;
    ensure!(one.log().contains("took this home over"), "{}", one.log_tail());
    private_take_over(&scene, &dir)?;
    one.fsck_is_clean()
}

/// A mount without a daemon that insists: it serves the home until it ends, and its owner has it
/// again then, with what was written meanwhile.
fn private_take_over(scene: &Scene, dir: &Path) -> Result<()> {
    let name = scene.user.name.as_str();
    let mut command = scene.offline_command(&["mount", name, &dir.display().to_string()]);
    command.arg("--take-over").stdout(Stdio::null()).stderr(Stdio::null());
    let mut mount = process::without_our_settings(&mut command).spawn()?;
    let served = wait::until("the private mount", TAKEN_MAX, || {
        std::thread::sleep(Duration::from_millis(100));
        is_mounted(dir).ok()?.then_some(())
    });
    let worked = served.and_then(|()| {
        let kept = fs::read_to_string(dir.join("kept"))?;
        ensure!(kept == "kept\n", "the private mount shows {kept:?}");
        let refused = scene.user.try_sh("echo two > refused && sync refused")?;
        ensure!(refused.code != 0, "two owners: {refused:?}");
        fs::write(dir.join("privately"), "written\n")?;
        Ok(())
    });
    process::terminate(&mount);
    let ended =
        wait::until("the end of the private mount", TAKEN_MAX, || mount.try_wait().transpose());
    worked?;
    let ended = ended??;
    ensure!(ended.success() && !is_mounted(dir)?, "the private mount ended with {ended}");
    scene.is_back()?;
    let written = scene.user.sh("cat privately; test ! -e refused")?;
    ensure!(written.trim() == "written", "its owner shows {written:?}");
    Ok(())
}

fn killed_owner(store: StoreKind) -> Result<()> {
    let mut scene = Scene::start(store, Options::default())?;
    scene.one.kill9();
    let two = scene.another(false)?;
    let (text, took) = read_within(&scene.home_at(&two).join("kept"), TAKEN_MAX)?;
    ensure!(text == "kept\n" && took < AT_ONCE, "{text:?} after {took:?}");
    // The same for a repair and for a mount without a daemon.
    let mut two = two;
    two.kill9();
    let started = Instant::now();
    let said = scene.offline(&["fsck", &scene.user.name, "--repair"])?;
    ensure!(said.code == 0, "a repair behind a kill: {said:?}");
    ensure!(started.elapsed() < AT_ONCE, "a repair took {:?}", started.elapsed());
    Ok(())
}

/// Files that were written and not synced when their daemon stops.
struct Unsynced {
    made: File,
    changed: File,
}

impl Unsynced {
    fn write(home: &Path) -> Result<Self> {
        let mut changed = File::options().append(true).open(home.join("kept"))?;
        let mut made = File::create_new(home.join("made"))?;
        changed.write_all(b"lost\n")?;
        made.write_all(b"lost\n")?;
        Ok(Self { made, changed })
    }

    /// Nobody may be told that any of it was kept, nor that anything later is.
    fn stays_lost(mut self) -> Result<()> {
        for (what, file) in [("made", &mut self.made), ("changed", &mut self.changed)] {
            let (synced, again) = (errno(file.sync_all()), errno(file.sync_all()));
            ensure!(is_loss(synced) && is_loss(again), "sync of {what}: {synced:?}, {again:?}");
            let written = file.write_all(b"late\n").and_then(|()| file.sync_all());
            ensure!(is_loss(errno(written)), "a late write to what was {what} is kept");
        }
        Ok(())
    }
}

/// Without `--take-over`: waits for the expiry. The stopped daemon comes back much later.
fn stopped_owner(store: StoreKind) -> Result<()> {
    let scene = Scene::start(store, Options::default())?;
    let log = Log::start(&scene.user.home.join("log"))?;
    log.wait_for_more(5, TAKEN_MAX)?;
    let lost = Unsynced::write(&scene.user.home)?;
    scene.one.pause()?;
    let stopped = Instant::now();
    let promised = log.acknowledged();
    let mut two = scene.another(false)?;
    let home = scene.home_at(&two);
    let (text, took) = read_within(&home.join("kept"), TAKEN_MAX)?;
    eprintln!("the next owner had the home after {took:?}");
    ensure!(stopped.elapsed() >= TTL, "the home was taken over after {:?}", stopped.elapsed());
    ensure!(text.starts_with("kept\n"), "{text:?}");
    if is_long() {
        std::thread::sleep(Duration::from_secs(60).saturating_sub(stopped.elapsed()));
    }
    let lines = check_log(&home.join("log"), promised)?;
    scene.one.resume()?;
    acknowledges_nothing(log, lost, lines)?;
    after_the_loss(&scene, &mut two, lines)
}

/// Nothing that came after the loss was acknowledged, and what could not be kept stays an error.
fn acknowledges_nothing(log: Log, lost: Unsynced, lines: u64) -> Result<()> {
    let (acknowledged, error) = log.end_by_error()?;
    ensure!(acknowledged <= lines, "{acknowledged} lines acknowledged, {lines} kept");
    ensure!(is_loss(error), "the log of a daemon that lost the home ended with {error:?}");
    lost.stays_lost()
}

/// With `--take-over`, while the first daemon lives and comes back at once.
fn taken_over(store: StoreKind) -> Result<()> {
    let scene = Scene::start(store, Options::default())?;
    let log = Log::start(&scene.user.home.join("log"))?;
    log.wait_for_more(5, TAKEN_MAX)?;
    let mut two = scene.another(true)?;
    let home = scene.home_at(&two);
    let lost = Unsynced::write(&scene.user.home)?;
    scene.one.pause()?;
    let promised = log.acknowledged();
    let (_, took) = read_within(&home.join("kept"), TAKEN_MAX)?;
    ensure!(took < AT_ONCE, "--take-over took {took:?}");
    let lines = check_log(&home.join("log"), promised)?;
    scene.one.resume()?;
    acknowledges_nothing(log, lost, lines)?;
    after_the_loss(&scene, &mut two, lines)
}

/// Nothing of the store answers the first daemon, as when its network is gone.
fn cut_off(store: StoreKind) -> Result<()> {
    let switches = tempfile::tempdir()?;
    let switch = switches.path().join("hang");
    let environment = vec![("YADOKARI_TEST_HANG".to_owned(), switch.display().to_string())];
    let scene = Scene::start(store, Options { environment, ..Options::default() })?;
    let log = Log::start(&scene.user.home.join("log"))?;
    log.wait_for_more(5, TAKEN_MAX)?;
    let lost = Unsynced::write(&scene.user.home)?;
    // White space is the prefix of every name.
    fs::write(&switch, " ")?;
    let cut = Instant::now();
    let mut two = scene.another(false)?;
    let home = scene.home_at(&two);
    let (_, took) = read_within(&home.join("kept"), TAKEN_MAX)?;
    eprintln!("the next owner had the home after {took:?}");
    ensure!(cut.elapsed() >= TTL, "the home was taken over after {:?}", cut.elapsed());
    let promised = log.acknowledged();
    let lines = check_log(&home.join("log"), promised)?;
    // Meanwhile the first says what is wrong, in one line.
    let status = scene.one.json(&["status"])?;
    let trouble = status["trouble"].as_str().context("status says nothing")?;
    ensure!(trouble.contains("does not answer") && !trouble.contains('\n'), "{trouble}");
    fs::remove_file(&switch)?;
    acknowledges_nothing(log, lost, lines)?;
    after_the_loss(&scene, &mut two, lines)
}

/// The first daemon says that the home is lost and whom it is with; nothing that it did later
/// shows; and when the second gives the home up, the first serves it again, as it is by then.
fn after_the_loss(scene: &Scene, two: &mut Instance, lines: u64) -> Result<()> {
    let (one, name, home) = (&scene.one, scene.user.name.as_str(), scene.home_at(two));
    ensure!(one.log().contains("took this home over"), "{}", one.log_tail());
    let refused = || errno(fs::write(scene.user.home.join("refused"), "x"));
    ensure!(is_loss(refused()), "the first daemon takes writes again");
    let status = one.json(&["status"])?;
    let trouble = &status["homes_in_trouble"][0];
    let text = trouble["trouble"].as_str().unwrap_or_default();
    ensure!(trouble["home"] == name && text.contains("served by node"), "{status}");
    // The second owner's home is what was synced, and works.
    ensure!(!home.join("made").exists() || fs::read(home.join("made"))? != b"lost\nlate\n");
    ensure!(!fs::read_to_string(home.join("kept"))?.contains("late"), "a late write shows");
    ensure!(check_log(&home.join("log"), lines)? == lines, "the log grew after the takeover");
    ensure!(!home.join("refused").exists(), "a refused file shows");
    fs::write(home.join("kept"), "the second's\n")?;
    fs::write(home.join("second"), "new\n")?;
    fs::remove_file(home.join("log"))?;
    two.ok(&["sync"])?;
    // Data that the first still wrote may lie about until the next opening; nothing refers to it.
    let checked = two.run(&["fsck", name])?;
    let harmless = checked.out.contains("0 damaged") && checked.out.contains("0 wrong counts");
    ensure!(checked.code == 0 || harmless, "{checked:?}");
    two.stop()?;
    // Nothing that the kernel kept of the time before is shown by the first.
    let kept = scene.user.home.join("kept");
    let again = wait::until("the home to come back", TAKEN_MAX, || {
        std::thread::sleep(Duration::from_millis(200));
        fs::read_to_string(&kept).ok()
    })?;
    ensure!(again == "the second's\n", "the first daemon shows {again:?}");
    ensure!(fs::read_to_string(scene.user.home.join("second"))? == "new\n");
    ensure!(!scene.user.home.join("log").exists(), "a file that the second removed shows");
    let listed = scene.user.sh("ls")?;
    ensure!(listed.contains("second") && !listed.contains("log"), "{listed}");
    scene.user.sh("echo again > again; sync again; cat again")?;
    let status = one.json(&["status"])?;
    ensure!(status["homes_in_trouble"].as_array().is_some_and(Vec::is_empty), "{status}");
    let clean = wait::until("a clean check", TAKEN_MAX, || one.fsck_is_clean().ok());
    clean.or_else(|_| one.fsck_is_clean())
}
