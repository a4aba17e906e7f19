//! Containers, rootless, as a plain user whose home is on the mount: Podman, Buildah, Skopeo; and
//! the kernel's overlayfs itself, whose upper directory a home must be able to be.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use yadokari_tests::instance::Instance;
use yadokari_tests::podman::Podman;
use yadokari_tests::stores::StoreKind;
use yadokari_tests::user::User;
use yadokari_tests::{is_long, on_every_store, process};

/// Small files of the build's first step.
const FILES: usize = 3000;
const FILES_LONG: usize = 30_000;

/// Thousands of files, a copied tree, deletes of what lower layers hold, a large file, a change of
/// every mode, and names that move between layers: six layers.
const CONTAINERFILE: &str = r#"
FROM localhost/base
RUN mkdir /many && cd /many && i=0 && while [ $i -lt FILES ]; do i=$((i + 1)); echo "$i" > "f$i"; done
RUN cp -a /usr/share /copy
RUN rm -r /copy/doc /usr/share/doc /many/f1?? && rm -r /copy/perl5 && mkdir /copy/perl5 && touch /copy/perl5/new
RUN dd if=/dev/urandom of=/large bs=1M count=50 status=none && sha256sum /large > /large.sum
RUN chmod -R go-w,o-r /copy /many && chown -R 1:1 /copy/zoneinfo
RUN mv /many /moved && mv /moved/f1 /moved/f2 && ln /large /large.link && mkfifo /fifo && ln -s moved /many
"#;

/// Every name with what it is, and every byte, of a container's tree, as one line each.
const LISTING: &str = "find /usr /etc/passwd /var /copy /moved /many /large /large.link /fifo \
     -xdev -printf '%y %m %U %G %n %l %p\\n' | LC_ALL=C sort > /tmp/tree; \
     find /copy /moved /large /usr/bin -xdev -type f -print0 | LC_ALL=C sort -z | \
     xargs -0 sha256sum > /tmp/bytes; wc -l < /tmp/tree; cat /tmp/tree /tmp/bytes | sha256sum";

on_every_store! {
    podman_builds_runs_commits_saves_and_loads_with_the_kernels_overlay => whole_life;
    podman_buildah_and_skopeo_share_a_home_side_by_side => side_by_side;
    overlayfs_takes_a_home_as_its_upper_directory => overlay_on_top;
}

fn whole_life(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    let podman = Podman::set_up(&instance, &user)?;
    let info: serde_json::Value = serde_json::from_str(&podman.sh("podman info -f json")?)?;
    let facts = &info["store"];
    ensure!(facts["graphDriverName"] == "overlay", "{facts}");
    ensure!(facts["graphStatus"]["Native Overlay Diff"] == "true", "{facts}");
    let root = facts["graphRoot"].as_str().unwrap_or("");
    ensure!(Path::new(root).starts_with(&user.home), "images lie in {root}");

    let import = podman.import_base()?;
    // Nothing of a build's overlays is synced file by file, whatever Podman finds out by itself.
    podman.sh("mkdir volatile; cat > volatile/Containerfile <<'END'
FROM localhost/base
RUN grep ' / / ' /proc/self/mountinfo | grep -q volatile
END
         build -q -t volatile volatile; podman rmi volatile")?;
    let build = six_step_build(&podman)?;
    eprintln!("{store:?}: import {import:.1?}, build {build:.1?}");
    let seen = podman.sh(
        "podman run --rm --network=none built sh -c 'sha256sum --quiet -c /large.sum; ls /moved | \
         wc -l; ls /copy/perl5; stat -c %h /large; test -p /fifo; test ! -e /usr/share/doc; \
         test ! -e /copy/doc; cat /moved/f2'",
    )?;
    let files = if is_long() { FILES_LONG } else { FILES };
    // The 100 files f1??, and f2, which f1 replaced.
    let left = (files - 101).to_string();
    ensure!(seen.split_whitespace().eq([left.as_str(), "new", "2", "1"]), "built: {seen}");

    let tree = exec_and_commit(&podman)?;
    // What goes out and comes in again is each layer as the driver's native diff saw it.
    podman.sh("podman save -q -o saved.tar committed; podman system reset -f")?;
    let left = podman.sh(&format!("test ! -e {root} || find {root} -mindepth 2 | wc -l"))?;
    let left = if left.is_empty() { "0" } else { left.trim() };
    ensure!(left == "0", "after the reset {left} entries are left in {root}");
    podman.sh("podman load -q -i saved.tar; rm saved.tar")?;
    let loaded =
        podman.sh(&format!("podman run --rm --network=none committed sh -c \"{LISTING}\""))?;
    ensure!(loaded == tree, "before save and load:\n{tree}after:\n{loaded}");
    podman
        .sh("podman rmi -f committed; test -z \"$(podman images -q)\"; podman system reset -f")?;
    drop(podman);
    instance.fsck_is_clean()
}

fn six_step_build(podman: &Podman<'_>) -> Result<std::time::Duration> {
    let files = if is_long() { FILES_LONG } else { FILES };
    let file = CONTAINERFILE.replace("FILES", &files.to_string());
    podman.sh(&format!("mkdir context; cat > context/Containerfile <<'END'\n{file}END"))?;
    let started = Instant::now();
    podman.sh("build -q --layers -t built context")?;
    let took = started.elapsed();
    let layers = podman.sh("podman image inspect built -f '{{len .RootFS.Layers}}'")?;
    ensure!(layers.trim() == "7", "{layers} layers instead of the base and six");
    // Everything again, from what the layers' cache holds: a build with nothing to do.
    let again = podman.sh("build --layers -t built context 2>&1")?;
    ensure!(again.matches("Using cache").count() == 6, "built anew: {again}");
    Ok(took)
}

/// Changes a running container, makes an image of it; gives the listing of its tree.
fn exec_and_commit(podman: &Podman<'_>) -> Result<String> {
    podman.sh(
        "podman run -d --name box built sleep 1000 > /dev/null
         podman exec box sh -c 'echo made > /made; rm /large.sum; rm -r /usr/share/man; chown 7:7 /etc/passwd'
         test \"$(podman exec box cat /made)\" = made
         podman exec box sh -c 'ls /sys/class/net' | grep -q tap0
         podman commit -q box committed > /dev/null
         changes=$(podman diff box)
         grep -qx 'A /made' <<< \"$changes\"
         grep -qx 'D /large.sum' <<< \"$changes\"
         podman rm -f -t 0 box > /dev/null",
    )?;
    let tree =
        podman.sh(&format!("podman run --rm --network=none committed sh -c \"{LISTING}\""))?;
    ensure!(tree.lines().count() == 2, "{tree}");
    Ok(tree)
}

fn side_by_side(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    let podman = Podman::set_up(&instance, &user)?;
    podman.import_base()?;
    keep_id(&podman, &user)?;
    two_builds_at_once(&podman)?;
    buildah_and_skopeo(&podman)?;
    drop(podman);
    instance.fsck_is_clean()
}

fn keep_id(podman: &Podman<'_>, user: &User) -> Result<()> {
    let ids = podman.sh("mkdir shared; echo outside > shared/out
         podman run --rm --network=none --userns=keep-id -v ./shared:/shared base \
         sh -c 'id -u; cat /shared/out; echo inside > /shared/in; mv /shared/out /shared/moved'
         stat -c %u shared/in; cat shared/in; ls shared")?;
    let uid = user.uid.to_string();
    let wanted = [&uid, "outside", &uid, "inside", "in", "moved"];
    ensure!(ids.split_whitespace().eq(wanted), "{ids:?}, not {wanted:?}");
    // As root of a container, a file of another of its users is one of a subordinate id outside.
    let owner = podman.sh(
        "podman run --rm --network=none -v ./shared:/shared base chown 33:33 /shared/in
         stat -c %u shared/in
         podman unshare rm -r shared",
    )?;
    let owner: u32 = owner.trim().parse().context(owner)?;
    ensure!(owner > user.uid, "{owner} is no subordinate id");
    Ok(())
}

fn two_builds_at_once(podman: &Podman<'_>) -> Result<()> {
    podman.sh("for n in one two; do mkdir $n; cat > $n/Containerfile <<END
FROM localhost/base
RUN mkdir /d && cd /d && for i in \\$(seq 500); do echo $n \\$i > f\\$i; done
RUN rm /d/f1* /usr/share/doc -r && echo $n > /name
END
         done
         build -q --layers -t one one > /dev/null & first=$!
         build -q --layers -t two two > /dev/null
         wait $first
         for n in one two; do
           podman run --rm --network=none $n sh -c \"grep -lx '$n [0-9]*' /d/f* | wc -l; cat /name\"
         done > said; diff said - <<END
389
one
389
two
END")?;
    Ok(())
}

fn buildah_and_skopeo(podman: &Podman<'_>) -> Result<()> {
    podman.sh(
        "bud -q --layers -t localhost/bud one > /dev/null
         box=$(buildah from localhost/base)
         buildah run --isolation=chroot $box sh -c 'echo built > /by-buildah; rm -r /usr/share/man'
         tree=$(buildah unshare sh -c \"ls -A \\$(buildah mount $box)/usr/share/man\" 2>&1 || true)
         grep -q 'No such file' <<< \"$tree\"
         buildah commit -q $box localhost/by-buildah > /dev/null
         buildah rm $box > /dev/null
         skopeo copy -q containers-storage:localhost/by-buildah:latest oci:layout:x
         podman rmi -f localhost/by-buildah > /dev/null
         skopeo copy -q oci:layout:x containers-storage:localhost/back:latest
         podman run --rm --network=none back sh -c 'cat /by-buildah; ls /usr/share/man 2>&1' > said || true
         grep -qx built said; grep -q 'No such file' said
         rm -r layout one two said",
    )?;
    Ok(())
}

fn overlay_on_top(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    renames_for_overlays(&user)?;
    // As root with trusted.* attributes, and as the user in namespaces of their own with user.*.
    let root = instance.user()?;
    process::sh(&format!(
        "cd {}; {}",
        root.home.display(),
        overlay_script("redirect_dir=on", "trusted")
    ))?;
    user.sh(&format!(
        "unshare -Urm bash -euo pipefail <<'END'\n{}\nEND",
        overlay_script("userxattr", "user")
    ))?;
    instance.fsck_is_clean()
}

fn overlay_script(options: &str, space: &str) -> String {
    // Both spaces share the steps; a renamed lower directory is copied by `mv` without redirects.
    format!(
        "mkdir l u w m l/dir l/dir/sub l/moves
         for n in gone kept old changed dir/x dir/y dir/sub/z moves/in; do echo $n > l/$n; done
         ln -s kept l/link; ln l/kept l/hard; mkfifo l/fifo; chmod 4755 l/changed
         setfattr -n user.note -v text l/changed
         mount -t overlay overlay -o {options},lowerdir=l,upperdir=u,workdir=w m
         rm m/gone; test ! -e m/gone; test \"$(stat -c '%F %t %T' u/gone)\" = 'character special file 0 0'
         mv m/old m/new; test -c u/old; test \"$(cat m/new)\" = old
         rm -r m/dir; mkdir m/dir; test -z \"$(ls -A m/dir)\"
         test \"$(getfattr --absolute-names --only-values -n {space}.overlay.opaque u/dir)\" = y
         touch m/dir/x; mv m/dir/x m/dir/y; test \"$(ls m/dir)\" = y
         echo more >> m/changed; test \"$(getfattr --only-values -n user.note m/changed)\" = text
         test \"$(stat -c %a l/changed)\" = 4755
         mv m/moves m/moved; test ! -e m/moves; test -c u/moves; test \"$(cat m/moved/in)\" = moves/in
         mkdir m/moves; test -z \"$(ls -A m/moves)\"
         mv m/new m/gone; mv m/gone m/kept; test \"$(cat m/kept)\" = old; test \"$(cat m/hard)\" = kept
         chown -h 0:0 m/link; chmod 600 m/fifo; test -p u/fifo
         test \"$(ls m | tr '\\n' ' ')\" = 'changed dir fifo hard kept link moved moves '
         umount m
         mount -t overlay overlay -o {options},lowerdir=l,upperdir=u,workdir=w m
         test \"$(ls m | tr '\\n' ' ')\" = 'changed dir fifo hard kept link moved moves '
         test \"$(cat m/moved/in)\" = moves/in; test -z \"$(ls -A m/moves)\"; test \"$(ls m/dir)\" = y
         test \"$(ls l | wc -l)\" = 9; test \"$(cat l/kept)\" = kept
         umount m"
    )
}

/// The flags of rename(2) that overlayfs uses below, asked for directly.
fn renames_for_overlays(user: &User) -> Result<()> {
    let dir = user.home.join("renames");
    user.sh("mkdir renames")?;
    let (a, b) = (dir.join("a"), dir.join("b"));
    std::fs::write(&a, "a")?;
    renameat_with(CWD, &a, CWD, &b, RenameFlags::WHITEOUT).context("RENAME_WHITEOUT")?;
    let left = a.symlink_metadata()?;
    ensure!(left.file_type().is_char_device() && left.rdev() == 0, "no whiteout: {left:?}");
    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).context("RENAME_EXCHANGE")?;
    ensure!(std::fs::read_to_string(&a)? == "a", "not exchanged");
    ensure!(b.symlink_metadata()?.file_type().is_char_device(), "not exchanged");
    let refused = renameat_with(CWD, &a, CWD, &b, RenameFlags::NOREPLACE);
    ensure!(refused == Err(rustix::io::Errno::EXIST), "RENAME_NOREPLACE: {refused:?}");
    // As the user, who may make no other device: 0/0 is none.
    user.sh("mknod renames/white c 0 0; ! mknod renames/device c 1 3 2> /dev/null")?;
    Ok(std::fs::remove_dir_all(&dir)?)
}
