//! What collection may take from a repository.

use std::collections::{BTreeSet, HashSet};

use super::op::RepoOp;
use super::state::Repo;
use crate::digest::Digest;

/// Times that decide, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    pub(crate) now_ms: u64,
    pub(crate) grace_ms: u64,
    pub(crate) untagged_ms: u64,
}

impl Ages {
    fn is_over(&self, since_ms: u64, wait_ms: u64) -> bool {
        since_ms.saturating_add(wait_ms) <= self.now_ms
    }
}

impl Repo {
    /// Manifests that go: those that nothing kept for long enough, those whose subject was
    /// removed longer than the grace ago, and with each the referrers that only it keeps.
    pub(crate) fn due_manifests(&self, ages: &Ages) -> BTreeSet<Digest> {
        let mut due: BTreeSet<Digest> = BTreeSet::new();
        let mut next = Vec::new();
        for (digest, entry) in &self.manifests {
            let Some(since) = entry.unkept_ms else {
                continue;
            };
            let wait = if entry.subject_gone { ages.grace_ms } else { ages.untagged_ms };
            if ages.is_over(since, wait) && due.insert(*digest) {
                next.push(*digest);
            }
        }
        while let Some(gone) = next.pop() {
            for referrer in self.referrers_of(&gone) {
                let is_kept = self.tags_of(referrer).next().is_some()
                    || self
                        .parents_of(referrer)
                        .is_some_and(|p| p.iter().any(|p| !due.contains(p)));
                if !is_kept && due.insert(*referrer) {
                    next.push(*referrer);
                }
            }
        }
        due
    }

    /// Links that no manifest uses and that were made longer than the grace ago.
    pub(crate) fn unused_links(&self, ages: &Ages) -> Vec<Digest> {
        let unused = self.links.iter().filter(|(digest, link)| {
            link.condemned_ms.is_none()
                && self.user_of(digest).is_none()
                && ages.is_over(link.linked_ms, ages.grace_ms)
        });
        let mut unused: Vec<Digest> = unused.map(|(digest, _)| *digest).collect();
        unused.sort_unstable();
        unused
    }

    /// Links that were condemned longer than the grace ago and are still not used.
    pub(crate) fn due_links(&self, ages: &Ages) -> BTreeSet<Digest> {
        let due = self.links.iter().filter(|(digest, link)| {
            link.condemned_ms.is_some_and(|since| ages.is_over(since, ages.grace_ms))
                && self.user_of(digest).is_none()
        });
        due.map(|(digest, _)| *digest).collect()
    }

    /// Operations that take away what is due and among `wanted`.
    pub(crate) fn take(&self, wanted: &HashSet<Digest>, ages: &Ages) -> (Vec<RepoOp>, u64, u64) {
        let mut ops = Vec::new();
        let is_wanted = |digest: &&Digest| wanted.contains(*digest);
        for digest in self.due_manifests(ages).iter().filter(is_wanted) {
            ops.push(RepoOp::Drop { d: *digest, t: ages.now_ms });
        }
        let manifests = ops.len() as u64;
        for digest in self.due_links(ages).iter().filter(is_wanted) {
            ops.push(RepoOp::Unlink { d: *digest });
        }
        let links = ops.len() as u64 - manifests;
        (ops, manifests, links)
    }
}
