//! Homes of several users on one mount: how they appear, who sees them, what a stall reaches.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use yadokari_tests::instance::{Instance, Options};
use yadokari_tests::stores::StoreKind;
use yadokari_tests::user::User;
use yadokari_tests::{on_every_store, process, wait};

on_every_store! {
    a_home_appears_when_its_own_user_first_looks_and_for_nobody_else => appears;
    listing_two_hundred_homes_opens_none => listing_opens_none;
    a_removed_home_comes_back_by_restore_only => removed;
    neither_of_two_users_reads_lists_or_fills_the_home_of_the_other => two_users;
    a_directory_shared_by_acl_is_shared_and_nothing_else => shared_by_acl;
    a_store_that_hangs_for_one_home_stalls_no_other => stall;
    a_user_mounts_the_home_elsewhere_and_unmounts_it => mounted_elsewhere;
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(dir)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

fn appears(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let (ada, bob) = (User::create(&instance.mount)?, User::create(&instance.mount)?);
    // Root looks at every name that the system knows, as login programs and loops do.
    process::sh(&format!(
        "getent passwd | cut -d: -f1 | while read -r name; do stat {}/$name >/dev/null 2>&1 || true; done",
        instance.mount.display()
    ))?;
    ensure!(names(&instance.mount)?.is_empty(), "a loop made {:?}", names(&instance.mount)?);
    let other = process::run(bob.command("env").args(["--chdir=/", "stat"]).arg(&ada.home))?;
    ensure!(other.code != 0 && names(&instance.mount)?.is_empty(), "bob made ada's home");
    ada.sh("test -f ~/.bashrc; touch ~/works")?;
    ensure!(names(&instance.mount)? == [ada.name.as_str()]);
    let meta = fs::metadata(&ada.home)?;
    ensure!((meta.mode() & 0o7777, meta.uid(), meta.gid()) == (0o700, ada.uid, ada.gid));
    let skeleton = names(Path::new("/etc/skel"))?;
    let copied = names(&ada.home)?;
    ensure!(skeleton.iter().all(|name| copied.contains(name)), "{copied:?} of {skeleton:?}");
    // System users get none, whoever looks.
    ensure!(fs::metadata(instance.mount.join("daemon")).is_err());
    Ok(())
}

fn listing_opens_none(store: StoreKind) -> Result<()> {
    const HOMES: usize = 200;
    let mut instance = Instance::start(store)?;
    for number in 0..HOMES {
        instance.ok(&["home", "create", &format!("home{number}"), "--owner", "daemon"])?;
    }
    instance.stop()?;
    instance.restart()?;
    let listing = process::sh(&format!("ls -l {} | tail -n +2 | wc -l", instance.mount.display()))?;
    ensure!(listing.trim() == HOMES.to_string(), "{listing} homes listed");
    let open = instance.json(&["status"])?["homes_open"].as_u64();
    ensure!(open == Some(0), "{open:?} homes are open");
    Ok(())
}

fn removed(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    fs::write(user.home.join("kept"), "here")?;
    instance.ok(&["home", "remove", &user.name])?;
    ensure!(fs::metadata(&user.home).is_err(), "it is still there");
    let looked = process::run(user.command("true").arg("x"))?;
    ensure!(looked.code != 0 && fs::metadata(&user.home).is_err(), "looking brought it back");
    let again = instance.run(&["home", "create", &user.name])?;
    ensure!(again.code == 4 && again.err.contains("restore"), "{again:?}");
    instance.ok(&["home", "restore", &user.name])?;
    ensure!(fs::read_to_string(user.home.join("kept"))? == "here");
    Ok(())
}

fn two_users(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let (ada, bob) = (instance.user()?, instance.user()?);
    ada.sh("mkdir dir; echo secret > dir/file; echo secret > file")?;
    for attempt in [
        format!("cat {}/file", ada.home.display()),
        format!("ls {}", ada.home.display()),
        format!("cat {}/dir/file", ada.home.display()),
        format!("echo x > {}/mine", ada.home.display()),
        format!("mkdir {}/mine", ada.home.display()),
        format!("rm -rf {0}/file && ! test -e {0}/file", ada.home.display()),
        format!("mv {} {}/gone", ada.home.display(), bob.home.display()),
        format!("ln {}/file ~/link", ada.home.display()),
        format!("getfattr -d {}", ada.home.display()),
    ] {
        let said = bob.try_sh(&attempt)?;
        ensure!(said.code != 0, "{attempt} worked: {said:?}");
    }
    ensure!(ada.sh("cat dir/file file")? == "secret\nsecret\n");
    // Each has a quota of their own.
    instance.ok(&["home", "set-quota", &ada.name, "--quota", "1M"])?;
    let filled = ada.try_sh("head -c 3000000 /dev/zero > big")?;
    ensure!(filled.code != 0 && filled.err.contains("quota"), "{filled:?}");
    bob.sh("head -c 3000000 /dev/zero > big")?;
    // Across homes there is no rename and no link, as between file systems.
    let error = fs::rename(bob.home.join("big"), ada.home.join("big2")).expect_err("crosses");
    ensure!(error.raw_os_error() == Some(libc::EXDEV), "{error}");
    Ok(())
}

fn shared_by_acl(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let (ada, bob) = (instance.user()?, instance.user()?);
    ada.sh(&format!(
        "mkdir shared private; echo private > private/file\n\
         setfacl -m u:{0}:x ~; setfacl -m u:{0}:rwx shared; setfacl -d -m u:{0}:rwX shared\n\
         echo from-ada > shared/file",
        bob.name
    ))?;
    let shared = ada.home.join("shared");
    bob.sh(&format!("cd {}; cat file; echo from-bob >> file; echo new > new", shared.display()))?;
    ensure!(ada.sh("cat shared/file shared/new")? == "from-ada\nfrom-bob\nnew\n");
    for attempt in ["ls .", "cat private/file", "mkdir private/x"] {
        let said = bob.try_sh(&format!("cd {}; {attempt}", ada.home.display()))?;
        ensure!(said.code != 0, "{attempt} worked: {said:?}");
    }
    // What bob made in ada's home counts for ada.
    ensure!(fs::metadata(shared.join("new"))?.uid() == bob.uid);
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
    let program = yadokari_tests::podman::program_for_users(&instance)?;
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
