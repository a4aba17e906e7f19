//! Subordinate ids, which user namespaces of containers are made of.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::{Finding, Subject};
use crate::program;
use crate::size::show_count;

/// An image of a distribution has files of ids up to 65,534.
const IDS_MIN: u64 = 65_536;

/// Has the user (for root: has anybody) subordinate ids?
pub fn subordinate_ids(subject: &Subject) -> Finding {
    let check = "subordinate ids";
    let user = subject.user.as_deref();
    if subject.is_root() {
        let users =
            |file| lines(file).map(|(name, _)| name).collect::<std::collections::BTreeSet<_>>();
        let (uids, gids) = (users("/etc/subuid"), users("/etc/subgid"));
        let both = uids.intersection(&gids).count();
        if both == 0 {
            let remedy = "as root, per user: usermod --add-subuids 100000-165535 \
                          --add-subgids 100000-165535 NAME";
            return Finding::warn(check, "no user has any: no rootless containers", remedy);
        }
        return Finding::ok(check, format!("{both} users have them"));
    }
    let number = subject.uid.to_string();
    let total = |file| -> u64 {
        lines(file)
            .filter(|(name, _)| Some(name.as_str()) == user || *name == number)
            .map(|(_, count)| count)
            .sum()
    };
    let ids = total("/etc/subuid").min(total("/etc/subgid"));
    let name = user.unwrap_or("NAME");
    let remedy = format!(
        "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name} \
         (a range that nobody else has), then: podman system migrate"
    );
    if ids == 0 {
        return Finding::fail(check, format!("{name} has none: no rootless containers"), remedy);
    }
    if ids < IDS_MIN {
        let detail = format!("{name} has {}, images want {}", show_count(ids), show_count(IDS_MIN));
        return Finding::warn(check, detail, remedy);
    }
    Finding::ok(check, format!("{name} has {}", show_count(ids)))
}

/// Are the helpers there that map them?
pub fn id_mapping() -> Finding {
    let check = "newuidmap";
    for program in ["newuidmap", "newgidmap"] {
        let Some(file) = program::find(program) else {
            let detail = format!("{program} is not installed: no rootless containers");
            return Finding::fail(check, detail, "install the package uidmap");
        };
        let setuid = fs::metadata(&file).is_ok_and(|m| m.uid() == 0 && m.mode() & 0o4000 != 0);
        let capable =
            rustix::fs::getxattr(&file, "security.capability", &mut [0u8; 64][..]).is_ok();
        if !setuid && !capable {
            let remedy = format!("as root: chmod u+s {}", file.display());
            return Finding::fail(check, format!("{} may map no ids", file.display()), remedy);
        }
    }
    Finding::ok(check, "newuidmap and newgidmap may map ids")
}

/// `name:first:count` lines.
fn lines(file: &str) -> impl Iterator<Item = (String, u64)> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let parsed: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut parts = line.trim().split(':');
            let (name, _first, count) = (parts.next()?, parts.next()?, parts.next()?);
            Some((name.to_owned(), count.parse().ok()?))
        })
        .collect();
    parsed.into_iter()
}
