//! Which homes appear, for whom one is made, and what the commands about homes do.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use yadokari_tests::instance::{Instance, Options};
use yadokari_tests::process::{self, Said};
use yadokari_tests::stores::StoreKind;
use yadokari_tests::user::User;
use yadokari_tests::{on_every_store, wait};

/// Homes in the listing that must open none.
const LISTED: usize = 200;
/// Looks at a path that leads through the root of the mount, which must ask the daemon nothing.
const LOOKS: u64 = 2000;
/// A look that the name service leaves without an answer: its 2 s, on a busy machine.
const UNANSWERED_MAX: Duration = Duration::from_secs(20);
/// What needs no name service, while it hangs; well under what waiting for it would take.
const UNHINDERED_MAX: Duration = Duration::from_secs(2);
/// Looks at once that the hanging name service holds: more than the daemon gives it threads.
const HUNG_LOOKS: usize = 24;

on_every_store! {
    a_loop_over_all_users_by_root_makes_no_homes => loop_over_users;
    the_first_look_of_the_user_makes_the_home_with_skeleton_and_default_quota => first_look;
    a_look_by_another_user_makes_no_home => look_by_another;
    listing_200_homes_opens_none => long_listing;
    a_path_from_the_root_asks_nothing_of_the_directory_of_homes => absolute_paths;
    a_removed_home_comes_back_only_by_restore => removal;
    the_commands_about_homes_do_what_they_say => commands;
    renames_and_links_across_homes_are_refused_as_across_devices => across_homes;
    a_name_server_that_hangs_hides_no_existing_home => hanging_name_server;
}

fn loop_over_users(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let users = [User::create(&instance.mount)?, User::create(&instance.mount)?];
    let passwd = process::ok(Command::new("getent").arg("passwd"))?;
    let names: BTreeSet<&str> = passwd.lines().filter_map(|line| line.split(':').next()).collect();
    for user in &users {
        ensure!(names.contains(user.name.as_str()), "getent does not show {}", user.name);
    }
    for name in names {
        let look = fs::symlink_metadata(instance.mount.join(name));
        let error = look.err().with_context(|| format!("a look by root made the home {name}"))?;
        ensure!(error.kind() == ErrorKind::NotFound, "{name}: {error}");
    }
    ensure!(homes(&instance)?.is_empty(), "homes: {:?}", homes(&instance)?);
    ensure!(fs::read_dir(&instance.mount)?.count() == 0, "the mount shows something");
    Ok(())
}

fn first_look(store: StoreKind) -> Result<()> {
    let skeleton = tempfile::tempdir()?;
    fs::set_permissions(skeleton.path(), fs::Permissions::from_mode(0o755))?;
    fs::write(skeleton.path().join(".profile"), "umask 027\n")?;
    fs::create_dir_all(skeleton.path().join("bin/deep"))?;
    fs::write(skeleton.path().join("bin/deep/tool"), vec![b'x'; 100_000])?;
    fs::set_permissions(skeleton.path().join("bin/deep/tool"), fs::Permissions::from_mode(0o755))?;
    symlink("bin/deep/tool", skeleton.path().join("link"))?;
    let path = skeleton.path().display().to_string();
    let options = Options {
        arguments: ["--quota", "3M", "--inodes", "100"].map(String::from).to_vec(),
        environment: vec![("YADOKARI_HOME_SKELETON".to_owned(), path)],
        ..Options::default()
    };
    let instance = Instance::start_with(store, options)?;
    let user = User::create(&instance.mount)?;
    let said = by(&user, &["stat", "-c", "%u %g %a %F", &user.home.display().to_string()])?;
    let wanted = format!("{} {} 700 directory\n", user.uid, user.gid);
    ensure!(said.out == wanted, "stat says {said:?}, wanted {wanted:?}");
    let listed = user.sh("find . -mindepth 1 -printf '%P %y %m %u\\n' | sort")?;
    let name = &user.name;
    let wanted = format!(
        ".profile f 644 {name}\nbin d 755 {name}\nbin/deep d 755 {name}\n\
         bin/deep/tool f 755 {name}\nlink l 777 {name}\n"
    );
    ensure!(listed == wanted, "the new home holds\n{listed}wanted\n{wanted}");
    let same = user.sh("cmp bin/deep/tool link && cat .profile")?;
    ensure!(same == "umask 027\n", "{same}");
    let shown = instance.json(&["home", "show", name])?;
    ensure!(shown["bytes_limit"] == 3 << 20 && shown["inodes_limit"] == 100, "{shown}");
    ensure!(shown["uid"] == user.uid && shown["gid"] == user.gid, "{shown}");
    ensure!(homes(&instance)? == [name.clone()], "{:?}", homes(&instance)?);
    Ok(())
}

fn look_by_another(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let (ada, bob) = (User::create(&instance.mount)?, User::create(&instance.mount)?);
    let path = ada.home.display().to_string();
    for look in [["stat", &path], ["ls", &path], ["mkdir", &path], ["touch", &path]] {
        let said = by(&bob, &look)?;
        ensure!(said.code != 0, "{look:?} by another user: {said:?}");
        ensure!(homes(&instance)?.is_empty(), "{look:?} made {:?}", homes(&instance)?);
    }
    // And right behind that, its user gets it.
    wait::until("the user's own look to make the home", UNANSWERED_MAX, || {
        by(&ada, &["stat", &path]).ok().filter(|said| said.code == 0)
    })?;
    ensure!(homes(&instance)? == [ada.name.clone()], "{:?}", homes(&instance)?);
    Ok(())
}

fn long_listing(store: StoreKind) -> Result<()> {
    let mut instance = Instance::start(store)?;
    for number in 0..LISTED {
        instance.ok(&["home", "create", &format!("h{number:03}"), "--owner", "nobody"])?;
    }
    // What was just made may be known to the daemon; after a start only the store knows it.
    instance.stop()?;
    instance.restart()?;
    for _twice in 0..2 {
        let listed = process::ok(Command::new("ls").arg("-l").arg(&instance.mount))?;
        let lines: Vec<_> = listed.lines().filter(|line| line.starts_with("drwx------")).collect();
        ensure!(lines.len() == LISTED, "{} homes listed:\n{listed}", lines.len());
        ensure!(lines.iter().all(|line| line.contains("nobody")), "owners:\n{listed}");
    }
    let status = instance.json(&["status"])?;
    ensure!(status["homes_open"] == 0, "the listing opened homes: {status}");
    let stats = instance.json(&["stats", "--once"])?;
    let open = |home: &Value| home["open"] == true;
    ensure!(!stats.as_array().context("a list")?.iter().any(open), "open: {stats}");
    // The figure means something: a look inside opens one.
    fs::read_dir(instance.mount.join("h007"))?.count();
    let status = instance.json(&["status"])?;
    ensure!(status["homes_open"] == 1, "a look inside one home: {status}");
    Ok(())
}

fn absolute_paths(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    user.sh("echo seen > file")?;
    let pid = instance.pid().context("it runs")?;
    let reads = || -> Result<u64> {
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        let line = io.lines().find_map(|line| line.strip_prefix("syscr: ")).context("syscr")?;
        Ok(line.parse()?)
    };
    let look = format!(
        "set +x; i=0; while [ $i -lt {LOOKS} ]; do i=$((i + 1)); [ -e \"$HOME/file\" ] || exit 1; done"
    );
    user.sh(&look)?;
    let before = reads()?;
    user.sh(&look)?;
    let asked = reads()? - before;
    ensure!(asked < LOOKS / 4, "{LOOKS} looks at a file made the daemon read {asked} times");

    // Whoever is in root's group enters like anybody else.
    user.sh("chmod 711 . && chmod 644 file")?;
    let file = user.home.join("file").display().to_string();
    let mut other = Command::new("setpriv");
    other.args(["--reuid", "65533", "--regid", "0", "--clear-groups", "cat", &file]);
    ensure!(process::ok(&mut other)? == "seen\n", "what root's group sees");
    Ok(())
}

fn removal(store: StoreKind) -> Result<()> {
    let mut instance = Instance::start(store)?;
    let user = instance.user()?;
    user.sh("echo precious > kept && sync kept && echo late > late")?;
    instance.ok(&["home", "remove", &user.name])?;
    let path = user.home.display().to_string();
    for restarted in [false, true] {
        if restarted {
            instance.stop()?;
            instance.restart()?;
        }
        wait::until("the removed home to vanish", UNANSWERED_MAX, || {
            by(&user, &["stat", &path]).ok().filter(|said| said.code != 0)
        })?;
        let said = by(&user, &["mkdir", &path])?;
        ensure!(said.code != 0, "mkdir by its user brought the home back");
        ensure!(fs::create_dir(&user.home).is_err(), "mkdir by root brought the home back");
        let said = instance.run(&["home", "create", &user.name])?;
        ensure!(said.code == 4 && said.err.contains("restore"), "home create: {said:?}");
        ensure!(instance.run(&["home", "show", &user.name])?.code == 3);
        ensure!(homes(&instance)?.is_empty(), "{:?}", homes(&instance)?);
    }
    instance.ok(&["home", "restore", &user.name])?;
    let kept = user.sh("cat kept late")?;
    ensure!(kept == "precious\nlate\n", "{kept}");
    let said = instance.run(&["home", "restore", &user.name])?;
    ensure!(said.code != 0, "a home that is there was restored: {said:?}");
    instance.fsck_is_clean()
}

fn commands(store: StoreKind) -> Result<()> {
    let mut instance = Instance::start(store)?;
    let user = User::create(&instance.mount)?;
    instance.ok(&["home", "create", &user.name, "--quota", "50M", "--inodes", "1k"])?;
    instance.ok(&["home", "create", "project", "--owner", &user.name])?;
    let again = instance.run(&["home", "create", "project", "--owner", &user.name])?;
    ensure!(again.code == 4, "a second create: {again:?}");
    ensure!(instance.run(&["home", "create", "nosuchuser"])?.code == 3);
    ensure!(instance.run(&["home", "show", "nosuchhome"])?.code == 3);
    ensure!(instance.run(&["home", "set-quota", "project"])?.code == 2);
    for bad in ["", ".", "..", "a/b", "-x", ".hidden"] {
        let said = instance.run(&["home", "create", "--owner", &user.name, "--", bad])?;
        ensure!(said.code == 2 || said.code == 4, "a home called {bad:?}: {said:?}");
    }
    let project = instance.mount.join("project");
    ensure!(project.symlink_metadata()?.uid() == user.uid, "the owner of project");
    // The same answers by the daemon and, without it, from the store.
    for running in [true, false] {
        if !running {
            instance.stop()?;
        }
        let list = instance.json(&["home", "list"])?;
        let names: Vec<_> = list.as_array().context("a list")?.iter().map(|h| &h["name"]).collect();
        ensure!(names.len() == 2 && names.contains(&&Value::from("project")), "{list}");
        let shown = instance.json(&["home", "show", &user.name])?;
        let quota = instance.json(&["quota", &user.name])?;
        ensure!(shown == quota, "show: {shown}\nquota: {quota}");
        ensure!(shown["uid"] == user.uid, "{shown}");
        let limit = if running { 50 << 20 } else { 70 << 20 };
        ensure!(shown["bytes_limit"] == limit && shown["inodes_limit"] == 1000, "{shown}");
        let shown = instance.json(&["home", "show", "project"])?;
        ensure!(shown["bytes_limit"].is_null() && shown["inodes_limit"].is_null(), "{shown}");
        instance.ok(&["home", "set-quota", &user.name, "--quota", "70M"])?;
    }
    instance.restart()?;
    instance.ok(&["home", "set-quota", &user.name, "--inodes", "none"])?;
    let shown = instance.json(&["home", "show", &user.name])?;
    ensure!(shown["bytes_limit"] == 70 << 20 && shown["inodes_limit"].is_null(), "{shown}");
    // Nobody but root makes, changes or removes homes.
    let program = instance.users_program()?.display().to_string();
    let data = instance.data().display().to_string();
    for args in [
        vec!["home", "remove", "project"],
        vec!["home", "set-quota", "project", "--quota", "1T"],
        vec!["home", "create", "another", "--owner", "root"],
    ] {
        let said = by(&user, &[&[program.as_str(), "--data", &data], &args[..]].concat())?;
        ensure!(said.code == 4, "{args:?} by a user: {said:?}");
    }
    instance.ok(&["home", "remove", "project"])?;
    ensure!(instance.run(&["home", "remove", "project"])?.code == 3);
    wait::until("the removed home to vanish", UNANSWERED_MAX, || {
        project.symlink_metadata().err().map(drop)
    })?;
    Ok(())
}

fn across_homes(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let (ada, bob) = (instance.user()?, instance.user()?);
    let (from, to) = (ada.home.join("file"), bob.home.join("file"));
    fs::write(&from, "ada's")?;
    fs::create_dir(ada.home.join("dir"))?;
    let crosses = |what: &str, done: std::io::Result<()>| -> Result<()> {
        let error = done.err().with_context(|| format!("{what} across homes succeeded"))?;
        ensure!(error.kind() == ErrorKind::CrossesDevices, "{what}: {error}");
        Ok(())
    };
    crosses("rename", fs::rename(&from, &to))?;
    crosses("rename of a directory", fs::rename(ada.home.join("dir"), bob.home.join("dir")))?;
    crosses("link", fs::hard_link(&from, &to))?;
    // As any program does then, mv copies.
    process::ok(Command::new("mv").arg(&from).arg(&to))?;
    ensure!(!from.exists() && fs::read_to_string(&to)? == "ada's");
    Ok(())
}

fn hanging_name_server(store: StoreKind) -> Result<()> {
    // The FIFO lies over the name service's configuration in the daemon's own mount namespace:
    // not over /etc/passwd, which useradd replaces and thereby uncovers everywhere.
    let through = ["unshare", "-m", "--propagation", "slave"];
    let apart = Options { through: through.map(String::from).to_vec(), ..Options::default() };
    let instance = Instance::start_with(store, apart)?;
    let (ada, bob) = (User::create(&instance.mount)?, User::create(&instance.mount)?);
    instance.ok(&["home", "create", &ada.name, "--owner", &ada.uid.to_string()])?;
    let inside = Inside { pid: instance.pid().context("it runs")? };
    let hang = Hang::start(&inside, instance.beside())?;
    // Nothing of the home is open or known to the kernel, and nobody's name can be asked for.
    let (home, file) = (ada.home.display(), ada.home.join("file"));
    inside.ok(&ada, &format!("echo there > {}", file.display()))?;

    let look = format!("test -d {}", bob.home.display());
    let looks: Vec<_> = (0..HUNG_LOOKS)
        .map(|_| {
            let (mut look, started) = (inside.command(&bob, &look), Instant::now());
            std::thread::spawn(move || (process::run(&mut look), started.elapsed()))
        })
        .collect();
    // An existing home is there all the while.
    let mut hindered = Vec::new();
    while !looks.iter().all(std::thread::JoinHandle::is_finished) {
        let started = Instant::now();
        let read = inside.ok(&ada, &format!("cat {}; ls -a {home} > /dev/null", file.display()))?;
        ensure!(read == "there\n", "{read}");
        hindered.push(started.elapsed());
    }
    let mut longest = Duration::ZERO;
    for look in looks {
        let (said, took) = look.join().expect("no panic");
        ensure!(said?.code != 0, "a home was made for a user whom nobody vouched for");
        longest = longest.max(took);
        ensure!(took < UNANSWERED_MAX, "a look without an answer took {took:?}");
    }
    ensure!(longest > Duration::from_secs(1), "the name service did not hang: {longest:?}");
    ensure!(hindered.iter().all(|took| *took < UNHINDERED_MAX), "existing home: {hindered:?}");
    ensure!(hindered.len() > 5, "the home was used only {} times meanwhile", hindered.len());
    // The name service is back, and so is what it lets a look do.
    drop(hang);
    wait::until("the home of a user who is known again", UNANSWERED_MAX, || {
        inside.ok(&bob, &look).ok()
    })?;
    Ok(())
}

/// The daemon's own view of the file system, mounts included.
#[derive(Clone, Copy)]
struct Inside {
    pid: u32,
}

impl Inside {
    fn enter(self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &self.pid.to_string()]);
        command
    }

    /// A script as a user, by number: names cannot be asked for there.
    fn command(self, user: &User, script: &str) -> Command {
        let mut command = self.enter();
        command.args(["-S", &user.uid.to_string(), "-G", &user.gid.to_string()]);
        command.args(["sh", "-c", script]);
        command
    }

    fn ok(self, user: &User, script: &str) -> Result<String> {
        process::ok(&mut self.command(user, script))
    }
}

/// A name service that answers nobody in the daemon's namespace, until it is dropped.
struct Hang {
    inside: Inside,
    fifo: PathBuf,
}

impl Hang {
    /// Whoever opens a FIFO that nobody writes hangs.
    fn start(inside: &Inside, scratch: &Path) -> Result<Self> {
        let fifo = scratch.join("nsswitch.conf");
        process::ok(Command::new("mkfifo").arg(&fifo))?;
        let mut bind = inside.enter();
        process::ok(bind.args(["mount", "--bind"]).arg(&fifo).arg("/etc/nsswitch.conf"))?;
        Ok(Self { inside: *inside, fifo })
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        let _ = process::run(self.inside.enter().args(["umount", "-l", "/etc/nsswitch.conf"]));
        // Opened for both, it lets go whoever waits; closed, it gives them an empty file.
        drop(fs::OpenOptions::new().read(true).write(true).open(&self.fifo));
    }
}

/// A program as a user who stands outside of all homes, so that nothing else looks at theirs.
fn by(user: &User, words: &[&str]) -> Result<Said> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string()]);
    command.args(["--init-groups", "env", "-i", "--chdir=/", "PATH=/usr/bin:/bin"]).args(words);
    process::run(&mut command)
}

/// The names of all homes.
fn homes(instance: &Instance) -> Result<Vec<String>> {
    let list = instance.json(&["home", "list"])?;
    let name = |home: &Value| home["name"].as_str().map(str::to_owned).context("a name");
    list.as_array().context("a list")?.iter().map(name).collect()
}
