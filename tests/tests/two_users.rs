//! Two users on one mount: private by default, shared where an ACL says so.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use yadokari_tests::instance::{Instance, is_plain};
use yadokari_tests::on_every_store;
use yadokari_tests::process::{self, Said};
use yadokari_tests::stores::StoreKind;
use yadokari_tests::user::User;

on_every_store! {
    neither_reads_lists_nor_changes_the_home_of_the_other => private;
    neither_fills_the_home_of_the_other => apart;
    a_directory_shared_by_acl_works_both_ways => shared;
    a_default_acl_is_inherited_as_on_a_local_disk => inherited;
    set_id_bits_fall_by_whom_and_when_they_do_on_a_local_disk => set_id;
}

fn refused(user: &User, script: &str) -> Result<Said> {
    let said = user.try_sh(script)?;
    ensure!(said.code != 0, "{} could: {script}\n{}", user.name, said.out);
    ensure!(said.err.contains("Permission denied"), "{script}: {}", said.err);
    Ok(said)
}

fn private(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let (ada, bob) = (instance.user()?, instance.user()?);
    for (owner, other) in [(&ada, &bob), (&bob, &ada)] {
        // Wide open inside: the root of the home alone must hold.
        owner.sh("umask 0; mkdir -p open; echo secret > open/file; ln -s open/file link")?;
        let home = owner.home.display();
        for script in [
            format!("ls {home}"),
            format!("cd {home}"),
            format!("cat {home}/open/file"),
            format!("cat {home}/link"),
            format!("stat {home}/open"),
            format!("ls {home}/open"),
            format!("touch {home}/new"),
            format!("echo x >> {home}/open/file"),
            format!("mkdir {home}/open/dir"),
            format!("rm -f {home}/open/file"),
            format!("mv {home}/open {home}/moved"),
            format!("ln {home}/open/file stolen"),
            format!("getfattr -d {home}/open"),
        ] {
            refused(other, &script)?;
        }
        // The home itself is seen, as every user's is, but not changed.
        other.sh(&format!("test \"$(stat -c %a {home})\" = 700"))?;
        for script in [
            format!("chmod 777 {home}"),
            format!("chown {} {home}", other.name),
            format!("setfacl -m u:{}:rwx {home}", other.name),
            format!("rmdir {home}"),
            format!("mv {home} {home}-mine"),
        ] {
            let said = other.try_sh(&script)?;
            ensure!(said.code != 0, "{} could: {script}", other.name);
        }
        ensure!(owner.sh("cat open/file; ls -A open")? == "secret\nfile\n");
    }
    Ok(())
}

fn apart(store: StoreKind) -> Result<()> {
    if is_plain() {
        return Ok(()); // A plain directory has no quota.
    }
    let instance = Instance::start(store)?;
    let (ada, bob) = (instance.user()?, instance.user()?);
    for user in [&ada, &bob] {
        user.sh("ls -A")?;
        instance.ok(&["home", "set-quota", &user.name, "--quota", "2M", "--inodes", "100"])?;
    }
    let said = bob.try_sh("head -c 3M /dev/zero > big")?;
    ensure!(said.code != 0 && said.err.contains("quota"), "{said:?}");
    let said = bob.try_sh("for n in $(seq 200); do : > f$n; done")?;
    ensure!(said.code != 0 && said.err.contains("quota"), "{said:?}");
    // Full is full for one of them only.
    ada.sh("head -c 1900K /dev/urandom > mine && for n in $(seq 80); do : > f$n; done")?;
    let before = instance.json(&["quota", &ada.name])?;
    bob.sh("rm big f*")?;
    ensure!(instance.json(&["quota", &ada.name])? == before, "rm by another changed the quota");
    // What another writes into a shared directory counts where it lies.
    ada.sh(&format!(
        "rm mine; setfacl -m u:{0}:x . && mkdir s && setfacl -m u:{0}:rwx s",
        bob.name
    ))?;
    let used = |user: &User| -> Result<u64> {
        instance.json(&["quota", &user.name])?["bytes"].as_u64().context("bytes")
    };
    let (adas, bobs) = (used(&ada)?, used(&bob)?);
    bob.sh(&format!("head -c 123456 /dev/urandom > {}/s/bobs", ada.home.display()))?;
    ensure!(used(&ada)? == adas + 123_456 && used(&bob)? == bobs, "charged to the wrong home");
    Ok(())
}

fn shared(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let (ada, bob, eve) = (instance.user()?, instance.user()?, instance.user()?);
    let (a, b) = (&ada.name, &bob.name);
    ada.sh(&format!(
        "setfacl -m u:{b}:x . && mkdir shared && echo private > beside && chmod 644 beside
         setfacl -m u:{b}:rwx,d:u:{b}:rwx,d:u:{a}:rwx shared && echo from-ada > shared/a"
    ))?;
    let dir = ada.home.join("shared");
    let dir = dir.display();
    bob.sh(&format!(
        "cd {dir} && test \"$(cat a)\" = from-ada && echo and-bob >> a
         mkdir below && echo from-bob > below/b && ln a linked && mv linked below/"
    ))?;
    // Ada, in turn, changes what belongs to Bob, because the default ACL says so.
    ada.sh("cd shared && test \"$(cat below/b)\" = from-bob && echo and-ada >> below/b
         echo more > below/a2 && rm below/linked && test \"$(cat a)\" = $'from-ada\\nand-bob'")?;
    let both = bob.sh(&format!("cat {dir}/below/b && rm -r {dir}/below {dir}/a && ls -A {dir}"))?;
    ensure!(both == "from-bob\nand-ada\n", "{both}");
    // Passing through is not reading, and a third user gets nothing.
    refused(&bob, &format!("ls {}", ada.home.display()))?;
    refused(&bob, &format!("touch {}/new", ada.home.display()))?;
    refused(&eve, &format!("ls {dir}"))?;
    // What was given is taken back at once.
    ada.sh(&format!("echo again > shared/a && setfacl -x u:{b} ."))?;
    refused(&bob, &format!("cat {dir}/a"))?;
    instance.fsck_is_clean()
}

/// Makes the same things in two places as the same user; the modes and ACLs must be the same.
fn inherited(store: StoreKind) -> Result<()> {
    let mut instance = Instance::start(store)?;
    let (ada, bob) = (instance.user()?, instance.user()?);
    let local = instance.beside().join("local");
    std::fs::create_dir(&local)?;
    std::os::unix::fs::chown(&local, Some(ada.uid), Some(ada.gid))?;
    let there = ada.home.join("acl");
    let make = |dir: &Path| {
        let b = &bob.name;
        ada.sh(&format!(
            "mkdir -p {0} && cd {0} && chmod 750 .
             setfacl -m u:{b}:rwx,g:{b}:r,m::rx,d:u::rwx,d:g::r,d:o::-,d:u:{b}:rwx,d:g:{b}:rx .
             umask 022; mkdir d1; mkdir -m 700 d1/d2; : > d1/f; mkfifo d1/p; ln -s f d1/l
             umask 077; mkdir d3; : > d3/f; cp /bin/true d3/program; chmod g-w d3/f
             setfacl -k d3; mkdir d3/none; : > d3/none/f; setfacl -b d1/f
             cp -a d1 d4; mkdir d5; setfacl -R -m u:{b}:rwX d5; mv d3 d5/
             chmod 4711 d5/d3/program",
            dir.display()
        ))
    };
    // Without ACLs local disks cannot judge: /tmp must have them, as ext4 and xfs do.
    make(&local).context("on the local disk")?;
    make(&there).context("in the home")?;
    let list = |dir: &Path| {
        ada.sh(&format!(
            "cd {} && find . ! -type l | sort | getfacl -n - && find . ! -type d -printf '%p %M %n\\n' | sort",
            dir.display()
        ))
    };
    let (wanted, found) = (list(&local)?, list(&there)?);
    ensure!(wanted == found, "on the local disk:\n{wanted}\nin the home:\n{found}");
    instance.stop()?;
    instance.restart()?;
    ensure!(list(&there)? == wanted, "after a restart:\n{}", list(&there)?);
    instance.fsck_is_clean()
}

/// Owner, stranger and root do the same to files with set-id bits in two places.
fn set_id(store: StoreKind) -> Result<()> {
    const CHOWN: &str = "python3 -c 'import os, sys; os.chown(sys.argv[1], -1, -1)'";
    const FALLS: &str = "program may not\nplain may\n";
    const MODES: &str = "acl 2755\nalive 777\ndead 766\nmine 2766\nown 755\nplain 644\n\
                         program 4755\nrooted 2755\nwritten 2745\n";
    let instance = Instance::start(store)?;
    let (ada, bob) = (instance.user()?, instance.user()?);
    ada.sh("chmod 711 .")?;
    let local = instance.beside().join("local");
    std::fs::create_dir(&local)?;
    std::os::unix::fs::chown(&local, Some(ada.uid), Some(ada.gid))?;
    for dir in [local, ada.home.join("set-id")] {
        let d = dir.display();
        ada.sh(&format!(
            "mkdir -p {d} && cd {d} && chmod 755 .
             for f in alive dead mine own plain program; do echo x > $f; done
             chmod 2777 alive; chmod 2766 dead mine; chmod 4755 own program; chmod 644 plain"
        ))?;
        let tried = bob.sh(&format!(
            "cd {d}; echo y >> alive; echo y >> dead
             for f in program plain; do {CHOWN} $f 2>/dev/null && echo $f may || echo $f may not; done"
        ))?;
        ada.sh(&format!("cd {d}; echo y >> mine; {CHOWN} own"))?;
        // The root of a container keeps the bits of the container's groups.
        ada.sh(&format!(
            "cd {d}; echo x > acl; echo x > written
             unshare --map-root-user --map-auto bash -euxc '
                 chgrp 5 acl written; chmod 2755 acl; chmod 2745 written
                 setfacl -m u:7:r acl; echo y >> written'"
        ))?;
        // Root keeps the bits where only capabilities must fall.
        process::sh(&format!(
            "cd {d}; head -c 8192 /dev/zero > rooted; chmod 2755 rooted
             python3 - <<'END'
import os
name = 'security.capability'
os.setxattr('rooted', name, bytes([1, 0, 0, 2, 0, 32]) + bytes(14))
os.system('fallocate --punch-hole --length 4096 rooted')
assert name not in os.listxattr('rooted'), 'the capabilities stayed'
END"
        ))?;
        let modes = ada.sh(&format!("cd {d}; stat -c '%n %a' *"))?;
        ensure!((&*tried, &*modes) == (FALLS, MODES), "{d}: {tried}{modes}");
    }
    instance.fsck_is_clean()
}
