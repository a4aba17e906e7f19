//! Rootless Podman: a base is imported, an image built in six steps, one command run; with
//! overlay where the home carries it, with vfs where that is what users get today.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use yadokari_tests::{podman, process};

use super::Workload;
use crate::contender::ours;
use crate::input;
use crate::place::{Place, Took};
use crate::size::Size;

pub const WORKLOAD: Workload = Workload {
    name: "containers",
    about: "rootless Podman: import of a base, a build of six steps, run of a command",
    rounds_max: 2,
    is_quick: false,
    prepare: |_| podman::base().map(drop),
    run,
};

const FUNCTIONS: &str = "
podman() { command podman --runtime runc --cgroup-manager=cgroupfs \"$@\"; }
build() { podman build --isolation=chroot \"$@\"; }
";

/// Thousands of small files, a copied tree, deletes of what lower layers hold, a large file, a
/// change of every mode, and names that move between layers.
const CONTAINERFILE: &str = r#"FROM localhost/base
RUN mkdir /many && cd /many && i=0 && while [ $i -lt FILES ]; do i=$((i + 1)); echo "$i" > "f$i"; done
RUN cp -a /usr/share /copy
RUN rm -r /copy/doc /usr/share/doc /many/f1??
RUN dd if=/dev/urandom of=/large bs=1M count=50 status=none
RUN chmod -R go-w,o-r /copy /many
RUN mv /many /moved"#;

fn run(place: &mut Place<'_>, size: Size) -> Result<()> {
    // On ceph-fuse neither Podman nor the kernel makes native overlays.
    let drivers: &[&str] = match place.contender.name() {
        "ceph-fuse" => &["vfs"],
        "ext4" => &["overlay", "vfs"],
        _ => &["overlay"],
    };
    for driver in drivers {
        build(place, driver, size)?;
    }
    Ok(())
}

fn build(place: &mut Place<'_>, driver: &str, size: Size) -> Result<()> {
    let base = podman::base()?;
    input::at_hand(&base)?;
    let file = CONTAINERFILE.replace("FILES", size.of("3000", "1000", "20"));
    set_up(place, driver)?;
    place.sh(&format!("mkdir -p context; cat > context/Containerfile <<'END'\n{file}\nEND"))?;
    let [import, six, one] = match driver {
        "vfs" => ["import, vfs", "six-step build, vfs", "run, vfs"],
        _ => ["import", "six-step build", "run"],
    };
    let script = format!("podman import -q {} localhost/base > /dev/null", base.display());
    let took = place.time_with(import, FUNCTIONS, &script)?;
    place.settle()?;
    if matches!(took, Took::Seconds(_)) {
        let took =
            place.time_with(six, FUNCTIONS, "build -q --layers -t built context > /dev/null")?;
        place.settle()?;
        if matches!(took, Took::Seconds(_)) {
            place.time_with(one, FUNCTIONS, "podman run --rm --network=none built true")?;
        }
    }
    clean(place)
}

/// As users have it: overlay set up by `yadokari setup podman`, on every file system.
fn set_up(place: &mut Place<'_>, driver: &str) -> Result<()> {
    if driver != "overlay" {
        let conf = ".config/containers/storage.conf";
        let text = format!("[storage]\\ndriver = \"{driver}\"\\n");
        place.sh(&format!("mkdir -p .config/containers; printf '{text}' > {conf}"))?;
        return Ok(());
    }
    // Where users can reach it, wherever it was built.
    let dir = tempfile::Builder::new().prefix("yadokari-").tempdir()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    let program = dir.path().join("yadokari");
    std::fs::copy(ours::program(), &program)?;
    place.sh(&format!("{} setup podman > /dev/null", program.display()))?;
    Ok(())
}

/// Everything of the user's containers goes, inside of the home and outside.
fn clean(place: &mut Place<'_>) -> Result<()> {
    let user = place.user;
    let _stopped_in_the_middle = user.try_sh(&format!("{FUNCTIONS} podman system reset -f"));
    user.end_processes();
    let uid = user.uid;
    let _ = std::fs::remove_file(format!("/dev/shm/libpod_rootless_lock_{uid}"));
    process::sh(&format!(
        "cd {0}; {{ grep -o ' {0}[^ ]*' /proc/self/mounts || true; }} | sort -r | \
         xargs -r -n1 umount -l; rm -rf .config .local .cache context",
        user.home.display()
    ))
    .context("removing what Podman left")?;
    place.settle()
}
