//! Snapshots on a mount, and homes as archives.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use yadokari_tests::instance::{Instance, binary};
use yadokari_tests::stores::StoreKind;
use yadokari_tests::tree::{self, Options, Tree};
use yadokari_tests::user::User;
use yadokari_tests::{is_long, on_every_store, process, usage};

on_every_store! {
    a_snapshot_is_found_by_name_shows_the_home_as_it_was_and_is_restored_by_cp => restored;
    nothing_in_a_snapshot_can_be_changed => read_only;
    snapshots_survive_a_kill_and_keep_their_inode_numbers => survives;
    nobody_sees_in_a_snapshot_what_they_could_not_see_then => permissions;
    what_snapshots_hold_is_shown_apart_from_the_quota => apart;
    a_clone_has_everything_and_outlives_its_origin => cloned;
    an_exported_home_is_imported_exactly => exported;
    many_snapshots_are_all_there_and_take_little_memory => many;
}

/// What a home may have, of all origins.
const SNAPSHOTS_MAX: usize = 1024;
const ALL: Options = Options { times: true, xattrs: true };

/// Files of every kind, as root would find them in a home that was used.
fn fill(user: &User) -> Result<()> {
    let home = &user.home;
    fs::create_dir_all(home.join("docs/deep"))?;
    fs::write(home.join("docs/big"), pattern(700_000))?;
    fs::write(home.join("docs/deep/small"), "small")?;
    fs::hard_link(home.join("docs/big"), home.join("hard"))?;
    symlink("docs/big", home.join("link"))?;
    symlink("x".repeat(300), home.join("long"))?;
    fs::write(home.join("n".repeat(200)), "a long name")?;
    fs::write(home.join("ünï"), "not ASCII")?;
    let sparse = fs::File::create(home.join("sparse"))?;
    for part in 0..5_u64 {
        sparse.write_all_at(&pattern(3000), part * 10_000_000)?;
    }
    sparse.set_len(60_000_000)?;
    let sh = format!(
        "cd {} && mkfifo pipe && mknod null c 1 3 && mknod gone c 0 0 && \
         chmod 4755 docs/deep/small && chmod 2770 docs && chown 1234:4321 hard && \
         setfattr -n user.k -v v docs/deep/small && setfattr -n trusted.t -v w docs && \
         setfacl -m u:1234:rwx docs && setfacl -d -m g:77:r-x docs/deep && \
         touch -h -d '1960-05-05 05:05:05.123456789' link && \
         touch -d '2033-03-03 03:03:03.987654321' docs/deep docs .",
        home.display()
    );
    process::sh(&sh)?;
    Ok(())
}

fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A tree without its own root's attributes, which `ls` of another directory would have too.
fn read(path: &Path) -> Result<Tree> {
    tree::read(path, ALL)
}

fn restored(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    fill(&user)?;
    let before = read(&user.home)?;
    instance.ok(&["home", "snapshot", "create", &user.name, "before"])?;
    let list = user.home.join(".snapshots");
    ensure!(!names(&user.home)?.contains(&".snapshots".to_owned()), "the root lists .snapshots");
    ensure!(names(&list)? == ["before"], "{:?}", names(&list)?);
    fs::remove_dir_all(user.home.join("docs"))?;
    fs::write(user.home.join("sparse"), "short")?;
    fs::write(user.home.join("new"), "new")?;
    tree::same("the snapshot", &before, &read(&list.join("before"))?)?;
    // The user brings it back with what every system has.
    let from = list.join("before").join("docs");
    process::ok(Command::new("cp").arg("-a").arg(&from).arg(&user.home))?;
    process::ok(Command::new("cp").arg("-a").arg(list.join("before/sparse")).arg(&user.home))?;
    let docs = |tree: &Tree| -> Tree {
        let below = tree.iter().filter(|(path, _)| path.starts_with("docs"));
        // The other name of the hard link stayed what it was.
        below.map(|(p, n)| (p.clone(), tree::Node { nlink: 1, ..n.clone() })).collect()
    };
    tree::same("what cp brought back", &docs(&before), &docs(&read(&user.home)?))?;
    let blocks = fs::metadata(user.home.join("sparse"))?.blocks();
    ensure!(blocks < 1000, "the holes were not found: {blocks} blocks");
    let found = process::ok(
        Command::new("find").arg(list.join("before")).args(["-name", "small", "-size", "-1k"]),
    )?;
    ensure!(found.is_empty() || found.ends_with("small\n"), "{found}");
    instance.ok(&["home", "snapshot", "rm", &user.name, "before"])?;
    ensure!(names(&list)?.is_empty(), "{:?}", names(&list)?);
    instance.fsck_is_clean()
}

fn names(path: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    let mut names: Vec<String> = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

fn read_only(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    fill(&user)?;
    instance.ok(&["home", "snapshot", "create", &user.name, "s"])?;
    let list = user.home.join(".snapshots");
    let kept = list.join("s");
    let small = kept.join("docs/deep/small");
    let refused = [
        ("write", fs::write(&small, "x")),
        ("create", fs::write(kept.join("new"), "x")),
        ("create in the list", fs::write(list.join("new"), "x")),
        ("mkdir", fs::create_dir(kept.join("dir"))),
        ("mkdir in the list", fs::create_dir(list.join("dir"))),
        ("unlink", fs::remove_file(&small)),
        ("rmdir", fs::remove_dir(&kept)),
        ("rmdir of the list", fs::remove_dir(&list)),
        ("rename", fs::rename(&small, kept.join("other"))),
        ("rename of a snapshot", fs::rename(&kept, list.join("t"))),
        ("chmod", fs::set_permissions(&small, fs::Permissions::from_mode(0o600))),
        ("chmod of the list", fs::set_permissions(&list, fs::Permissions::from_mode(0o700))),
        ("link", fs::hard_link(&small, kept.join("l"))),
        ("symlink", symlink("x", kept.join("l"))),
        ("rename into", fs::rename(user.home.join("hard"), kept.join("hard2"))),
    ];
    for (what, result) in refused {
        let error = result.err().with_context(|| format!("{what} worked"))?;
        let crossed = what.starts_with("rename") && error.kind() == ErrorKind::CrossesDevices;
        ensure!(crossed || error.kind() == ErrorKind::ReadOnlyFilesystem, "{what}: {error}");
    }
    let file = fs::File::open(&small)?;
    ensure!(file.set_len(0).is_err() && file.write_at(b"x", 0).is_err(), "a write worked");
    let taken = fs::create_dir(&list).err().context("mkdir .snapshots worked")?;
    ensure!(taken.kind() == ErrorKind::AlreadyExists, "{taken}");
    for arguments in
        [vec!["setfattr", "-n", "user.x", "-v", "y"], vec!["chown", "5"], vec!["touch", "-a"]]
    {
        let mut command = Command::new(arguments[0]);
        let said = process::run(command.args(&arguments[1..]).arg(&small))?;
        ensure!(said.err.contains("Read-only file system"), "{arguments:?}: {said:?}");
    }
    Ok(())
}

fn survives(store: StoreKind) -> Result<()> {
    let mut instance = Instance::start(store)?;
    let user = instance.user()?;
    fill(&user)?;
    instance.ok(&["home", "snapshot", "create", &user.name, "s"])?;
    let kept = user.home.join(".snapshots/s");
    let before = read(&kept)?;
    let numbers = |path: &Path| -> Result<Vec<u64>> {
        ["", "docs", "docs/big", "sparse"]
            .iter()
            .map(|name| Ok(fs::symlink_metadata(path.join(name))?.ino()))
            .collect()
    };
    let then = numbers(&kept)?;
    let live = numbers(&user.home)?;
    ensure!(then.iter().all(|ino| !live.contains(ino)), "{then:?} and {live:?} meet");
    fs::remove_file(user.home.join("docs/big"))?;
    instance.kill9();
    instance.restart()?;
    ensure!(numbers(&kept)? == then, "the numbers changed");
    tree::same("after a kill", &before, &read(&kept)?)?;
    instance.stop()?;
    // Commands work without a daemon, too.
    let list = instance.json(&["home", "snapshot", "list", &user.name])?;
    ensure!(list[0]["name"] == "s" && list[0]["origin"] == "command", "{list}");
    instance.ok(&["home", "snapshot", "create", &user.name, "t"])?;
    instance.restart()?;
    ensure!(names(&user.home.join(".snapshots"))? == ["s", "t"], "not both are there");
    tree::same("after a stop", &before, &read(&kept)?)?;
    let taken = instance.run(&["home", "snapshot", "create", &user.name, "t"])?;
    ensure!(taken.code == 4, "{taken:?}");
    let none = instance.run(&["home", "snapshot", "rm", &user.name, "u"])?;
    ensure!(none.code == 3, "{none:?}");
    instance.fsck_is_clean()
}

fn permissions(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let (user, other) = (instance.user()?, instance.user()?);
    fs::set_permissions(&user.home, fs::Permissions::from_mode(0o755))?;
    user.sh("mkdir open shut && echo a >open/f && echo b >shut/f && chmod 700 shut")?;
    instance.ok(&["home", "snapshot", "create", &user.name, "s"])?;
    user.sh("chmod 755 shut && chmod 700 open")?;
    let kept = user.home.join(".snapshots/s").display().to_string();
    ensure!(other.sh(&format!("cat {kept}/open/f"))? == "a\n", "the open file");
    ensure!(other.sh(&format!("cat {kept}/shut/f")).is_err(), "the shut file is seen");
    ensure!(user.sh(&format!("cat {kept}/shut/f"))? == "b\n", "the user's own");
    fs::set_permissions(&user.home, fs::Permissions::from_mode(0o700))?;
    ensure!(other.sh(&format!("ls {kept}/open")).is_err(), "the home is shut now");
    Ok(())
}

fn apart(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    fs::write(user.home.join("f"), pattern(600_000))?;
    instance.ok(&["home", "snapshot", "create", &user.name])?;
    fs::remove_file(user.home.join("f"))?;
    instance.ok(&["sync"])?;
    let shown = |command: &[&str]| -> Result<(u64, u64, u64)> {
        let json = instance.json(command)?;
        let number = |key: &str| json[key].as_u64().with_context(|| format!("{key} in {json}"));
        Ok((number("bytes")?, number("snapshots")?, number("snapshot_bytes")?))
    };
    for command in [&["quota", &user.name][..], &["home", "show", &user.name]] {
        let (bytes, snapshots, held) = shown(command)?;
        ensure!(bytes < 100_000 && snapshots == 1, "{bytes} bytes, {snapshots} snapshots");
        ensure!((600_000..650_000).contains(&held), "snapshots hold {held} bytes");
    }
    let name = names(&user.home.join(".snapshots"))?.remove(0);
    instance.ok(&["home", "snapshot", "rm", &user.name, &name])?;
    ensure!(shown(&["quota", &user.name])?.2 == 0, "still held");
    instance.ok(&["home", "snapshot", "schedule", &user.name, "off"])?;
    ensure!(instance.json(&["home", "show", &user.name])?["scheduled"] == false, "not off");
    Ok(())
}

/// As many as a home may have, in the long run. The same work with none and with all of them is
/// timed; these figures are printed, and judged by readers.
fn many(store: StoreKind) -> Result<()> {
    let count = if is_long() { SNAPSHOTS_MAX } else { 40 };
    let mut instance = Instance::start(store)?;
    let user = instance.user()?;
    let work = || -> Result<Duration> {
        let started = Instant::now();
        user.sh(
            "rm -rf w; mkdir w; for i in $(seq 500); do echo $i > w/$i; done; sync w; \
             ls -l w | tail -1; cat w/* | tail -1; for i in $(seq 30); do echo $i >> log; sync log; done; rm -r w",
        )?;
        Ok(started.elapsed())
    };
    work()?;
    let before = work()?;
    let started = Instant::now();
    for number in 0..count {
        fs::write(user.home.join("state"), number.to_string())?;
        fs::write(user.home.join(format!("file{}", number % 20)), number.to_string())?;
        instance.ok(&["home", "snapshot", "create", &user.name, &format!("s{number}")])?;
    }
    eprintln!("{count} snapshots in {:?}", started.elapsed());
    eprintln!("work: {before:?} without, {:?} with them", work()?);
    usage::stays_within_bounds(&instance, "with many snapshots")?;
    // The owner has a small share of them.
    let program = instance.users_program()?;
    let data = instance.data().display().to_string();
    let refused = user.try_sh(&format!(
        "{} --data {data} home snapshot create {} mine",
        program.display(),
        user.name
    ))?;
    let sentence = "there are 16 snapshots, as many as there may be: remove one";
    ensure!(refused.code == 4 && refused.err.contains(sentence), "{refused:?}");
    if is_long() {
        let refused = instance.run(&["home", "snapshot", "create", &user.name, "more"])?;
        let sentence = format!("there are {count} snapshots, as many as there may be: remove one");
        ensure!(refused.code == 4 && refused.err.contains(&sentence), "{refused:?}");
    }
    instance.kill9();
    instance.restart()?;
    let started = Instant::now();
    let first = fs::read_to_string(user.home.join("state"))?;
    eprintln!("first look after a start: {:?}", started.elapsed());
    ensure!(first == (count - 1).to_string(), "the home shows {first}");
    let list = user.home.join(".snapshots");
    ensure!(names(&list)?.len() == count, "{} snapshots are listed", names(&list)?.len());
    for number in (0..count).step_by(count / 10) {
        let state = fs::read_to_string(list.join(format!("s{number}/state")))?;
        ensure!(state == number.to_string(), "snapshot {number} shows {state}");
    }
    eprintln!("work after a start: {:?}", work()?);
    let started = Instant::now();
    let removed = (0..count).step_by(4).take(100).map(|number| format!("s{number}"));
    for name in removed.clone() {
        instance.ok(&["home", "snapshot", "rm", &user.name, &name])?;
    }
    eprintln!("{} removed in {:?}", removed.clone().count(), started.elapsed());
    ensure!(names(&list)?.len() == count - removed.count(), "not removed");
    usage::stays_within_bounds(&instance, "with snapshots removed")?;
    let started = Instant::now();
    instance.fsck_is_clean()?;
    eprintln!("fsck: {:?}", started.elapsed());
    usage::stays_within_bounds(&instance, "after fsck")
}

fn cloned(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    fill(&user)?;
    let before = read(&user.home)?;
    instance.ok(&["home", "snapshot", "create", &user.name, "s"])?;
    fs::remove_dir_all(user.home.join("docs"))?;
    let copy = format!("{}-copy", user.name);
    instance.ok(&["home", "clone", &format!("{}@s", user.name), &copy])?;
    let taken = instance.run(&["home", "clone", &user.name, &copy])?;
    ensure!(taken.code == 4, "{taken:?}");
    let none = instance.run(&["home", "clone", &format!("{}@none", user.name), "nobody-new"])?;
    ensure!(none.code == 3, "{none:?}");
    ensure!(instance.run(&["home", "show", "nobody-new"])?.code == 3, "it was made");
    instance.ok(&["home", "remove", &user.name])?;
    let home = instance.mount.join(&copy);
    tree::same("the clone", &before, &read(&home)?)?;
    fs::write(home.join("docs/new"), "writable")?;
    instance.fsck_is_clean()
}

fn exported(store: StoreKind) -> Result<()> {
    let mut instance = Instance::start(store)?;
    let user = instance.user()?;
    fill(&user)?;
    let before = read(&user.home)?;
    let file = instance.beside().join("home.tar");
    let path = file.display().to_string();
    instance.ok(&["home", "export", &user.name, &path])?;
    ensure!(fs::metadata(&file)?.len() < 2_000_000, "holes were written");
    // What others make of it.
    let out = instance.beside().join("tar");
    fs::create_dir(&out)?;
    let flags = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xpf"];
    process::ok(Command::new("tar").arg("-C").arg(&out).args(flags).arg(&file))?;
    let names_of = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    let theirs = read(&out)?;
    ensure!(names_of(&theirs) == names_of(&before), "tar makes other files");
    for (path, node) in &before {
        let found = &theirs[path];
        let same = (node.mode, node.owner, &node.content, node.size, node.rdev, node.mtime)
            == (found.mode, found.owner, &found.content, found.size, found.rdev, found.mtime);
        ensure!(same, "{}: {node:?}, tar made {found:?}", path.display());
    }
    // Into another home, without a daemon, and back from standard input.
    instance.stop()?;
    let copy = format!("{}-copy", user.name);
    instance.ok(&["home", "import", &copy, &path, "--owner", &user.name])?;
    instance.restart()?;
    tree::same("the imported home", &before, &read(&instance.mount.join(&copy))?)?;
    let again = format!("{}-again", user.name);
    let (program, data) = (binary().display().to_string(), instance.data().display().to_string());
    let import = format!("{program} --data {data} home import {again} --owner {}", user.name);
    process::sh(&format!("{import} <{path}"))?;
    tree::same("imported once more", &before, &read(&instance.mount.join(&again))?)?;
    // What breaks off leaves nothing.
    let short = instance.beside().join("short.tar");
    let bytes = fs::read(&file)?;
    fs::write(&short, &bytes[..bytes.len() / 2])?;
    let short = short.display().to_string();
    let said = instance.run(&["home", "import", "brokenoff", &short, "--owner", &user.name])?;
    ensure!(said.code == 1, "{said:?}");
    ensure!(instance.run(&["home", "show", "brokenoff"])?.code == 3, "a part stayed");
    instance.fsck_is_clean()
}
