//! Podman in a home: its version, the driver it would choose, the runtime and the network.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Finding, Subject};
use crate::program;
use crate::setup::storage::{self, Driver};

/// Native overlay without root, since this version.
const PODMAN_MIN: (u32, u32) = (3, 4);

/// Is Podman there?
pub fn podman(_subject: &Subject) -> Finding {
    let check = "podman";
    if program::find("podman").is_none() {
        return Finding::warn(check, "not installed", "install the packages podman and uidmap");
    }
    let said = match program::ask("podman", &["--version"]) {
        Ok(said) if said.success => said.out,
        Ok(said) => {
            return Finding::warn(check, said.err, "run `podman info` and mend what it says");
        }
        Err(why) => return Finding::warn(check, why, "run `podman info` and mend what it says"),
    };
    if program::version(&said) < PODMAN_MIN {
        return Finding::warn(check, said, "install Podman 3.4 or newer");
    }
    Finding::ok(check, said)
}

/// Which driver would it use here?
pub fn driver(subject: &Subject) -> Finding {
    let check = "podman driver";
    let remedy = if subject.is_root() {
        "yadokari setup podman --system (or each user: yadokari setup podman)"
    } else {
        "yadokari setup podman"
    };
    match storage::driver_in_use(&subject.home, subject.is_root()) {
        Driver::Overlay => Finding::ok(check, "overlay, by the kernel itself"),
        Driver::OverlayBy(program) => {
            Finding::warn(check, format!("overlay through {program}: slow in a home"), remedy)
        }
        Driver::Other(name) => {
            Finding::warn(check, format!("{name}: every layer is a full copy"), remedy)
        }
        Driver::Unset => {
            let detail = "not set: Podman would choose vfs in a home, with full copies";
            Finding::warn(check, detail, remedy)
        }
    }
}

/// Does the runtime work with this cgroup layout?
pub fn runtime(subject: &Subject) -> Finding {
    let check = "container runtime";
    let (crun, runc) = (program::find("crun").is_some(), program::find("runc").is_some());
    if !crun && !runc {
        return Finding::warn(check, "neither crun nor runc", "install the package crun");
    }
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if unified {
        let name = if crun { "crun" } else { "runc" };
        return Finding::ok(check, format!("{name}, cgroups version 2"));
    }
    // crun refuses cgroup v1 and hybrid layouts of some machines; runc with cgroupfs works.
    let remedy = "in containers.conf, section [engine]: runtime = \"runc\" and \
                  cgroup_manager = \"cgroupfs\" (or --runtime runc --cgroup-manager=cgroupfs)";
    if !runc {
        let detail = "crun, but the cgroup layout is version 1 or hybrid";
        return Finding::warn(check, detail, format!("install the package runc; then {remedy}"));
    }
    let user = subject.home.join(".config/containers/containers.conf");
    let set = [user.as_path(), Path::new("/etc/containers/containers.conf")]
        .into_iter()
        .filter_map(|file| fs::read_to_string(file).ok()?.parse::<toml::Table>().ok())
        .any(|conf| {
            let engine = conf.get("engine").and_then(toml::Value::as_table);
            engine.and_then(|e| e.get("runtime")).and_then(toml::Value::as_str) == Some("runc")
        });
    if set {
        return Finding::ok(check, "runc, as the cgroup layout (version 1 or hybrid) wants it");
    }
    Finding::warn(check, "the cgroup layout is version 1 or hybrid: crun may refuse it", remedy)
}

/// Can containers of users reach the network?
pub fn network() -> Finding {
    let check = "container network";
    if program::find("slirp4netns").is_none() && program::find("pasta").is_none() {
        let remedy = "install the package slirp4netns";
        return Finding::warn(check, "neither slirp4netns nor pasta: use --network=none", remedy);
    }
    match fs::metadata("/dev/net/tun") {
        Err(_) => Finding::warn(check, "/dev/net/tun is missing", "as root: modprobe tun"),
        Ok(meta) if meta.permissions().mode() & 0o006 != 0o006 => {
            let remedy = "as root: chmod 666 /dev/net/tun";
            Finding::warn(check, "/dev/net/tun is not usable by users", remedy)
        }
        Ok(_) => Finding::ok(check, "slirp4netns or pasta, with /dev/net/tun"),
    }
}
