//! The state of a ledger, and what each operation does to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::op::{IntentKind, LedgerOp, Seen};
use crate::digest::Digest;
use crate::log::State;
use crate::names::{RepoName, UploadId};
use crate::types::Quota;

/// A change of links that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) kind: IntentKind,
    pub(crate) repo: RepoName,
    pub(crate) digests: Vec<(Digest, u64)>,
    pub(crate) since_ms: u64,
}

/// What is known of a digest in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    here: bool,
    seq: u64,
}

/// A digest that is charged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    size: u64,
    /// Where it is linked, or was while intents for it are open.
    marks: BTreeMap<RepoName, Mark>,
    /// Intents that name it.
    intents: u32,
}

impl Held {
    fn is_charged(&self) -> bool {
        self.intents > 0 || self.marks.values().any(|mark| mark.here)
    }
}

/// The state of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) quota: Quota,
    pub(crate) counter: u64,
    /// Instances that are changing repositories, and since when.
    pub(crate) open: BTreeMap<String, u64>,
    /// Bytes and time by upload.
    pub(crate) reserved: BTreeMap<UploadId, (u64, u64)>,
    pub(crate) intents: BTreeMap<String, Intent>,
    held: HashMap<Digest, Held>,
    used_bytes: u64,
    reserved_bytes: u64,
}

impl Ledger {
    /// Bytes that are charged, each digest once.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    pub(crate) fn blobs(&self) -> u64 {
        self.held.len() as u64
    }

    pub(crate) fn reserved_by(&self, upload: &UploadId) -> u64 {
        self.reserved.get(upload).map_or(0, |(bytes, _)| *bytes)
    }

    /// Whether a digest is charged already.
    pub(crate) fn is_charged(&self, digest: &Digest) -> bool {
        self.held.contains_key(digest)
    }

    /// Every digest that something of this owner refers to, or is about to.
    pub(crate) fn referred(&self) -> impl Iterator<Item = &Digest> {
        self.held.keys()
    }

    /// Repositories where a digest is linked, as far as is settled.
    pub(crate) fn repos_with(&self, digest: &Digest) -> impl Iterator<Item = &RepoName> {
        let marks = self.held.get(digest).map(|held| &held.marks);
        marks.into_iter().flatten().filter(|(_, mark)| mark.here).map(|(repo, _)| repo)
    }

    /// Repositories where a digest is linked or may be by now.
    pub(crate) fn repos_about(&self, digest: &Digest) -> impl Iterator<Item = RepoName> {
        let has = |intent: &&Intent| intent.digests.iter().any(|(named, _)| named == digest);
        let is_moving = self.held.get(digest).is_some_and(|held| held.intents > 0);
        let intents = self.intents.values().filter(move |_| is_moving).filter(has);
        let about: BTreeSet<RepoName> =
            self.repos_with(digest).chain(intents.map(|intent| &intent.repo)).cloned().collect();
        about.into_iter()
    }

    /// Every link that is settled: repository, digest, length.
    pub(crate) fn links(&self) -> impl Iterator<Item = (&RepoName, &Digest, u64)> {
        self.held.iter().flat_map(|(digest, held)| {
            let here = held.marks.iter().filter(|(_, mark)| mark.here);
            here.map(move |(repo, _)| (repo, digest, held.size))
        })
    }

    /// Whether an open intent is about this digest in this repository.
    pub(crate) fn is_moving(&self, repo: &RepoName, digest: &Digest) -> bool {
        let is_about = |intent: &Intent| {
            intent.repo == *repo && intent.digests.iter().any(|(named, _)| named == digest)
        };
        self.held.get(digest).is_some_and(|held| held.intents > 0)
            && self.intents.values().any(is_about)
    }

    fn hold(&mut self, digest: &Digest, size: u64) -> &mut Held {
        let used = &mut self.used_bytes;
        self.held.entry(*digest).or_insert_with(|| {
            *used = used.saturating_add(size);
            Held { size, ..Held::default() }
        })
    }

    fn release_unless_charged(&mut self, digest: &Digest) {
        if self.held.get(digest).is_some_and(|held| !held.is_charged())
            && let Some(held) = self.held.remove(digest)
        {
            self.used_bytes = self.used_bytes.saturating_sub(held.size);
        }
    }

    fn see(&mut self, repo: &RepoName, seen: Seen, size: Option<u64>) {
        if size.is_none() && !self.held.contains_key(&seen.d) {
            return;
        }
        let held = self.hold(&seen.d, size.unwrap_or_default());
        let mark = Mark { here: seen.here, seq: seen.seq };
        match held.marks.get_mut(repo) {
            Some(known) if known.seq > mark.seq => {}
            Some(known) => *known = mark,
            None => {
                held.marks.insert(repo.clone(), mark);
            }
        }
    }

    /// Where nothing is under way any more, what is not linked need not be remembered.
    fn tidy(&mut self, repo: &RepoName, digest: &Digest) {
        if !self.is_moving(repo, digest)
            && let Some(held) = self.held.get_mut(digest)
            && held.marks.get(repo).is_some_and(|mark| !mark.here)
        {
            held.marks.remove(repo);
        }
        self.release_unless_charged(digest);
    }

    fn settle(&mut self, id: &str, repo: &RepoName, seen: &[Seen]) {
        let Some(intent) = self.intents.remove(id) else {
            return;
        };
        let sizes: HashMap<Digest, u64> = intent.digests.iter().copied().collect();
        for seen in seen {
            self.see(repo, *seen, sizes.get(&seen.d).copied());
        }
        for digest in sizes.keys() {
            if let Some(held) = self.held.get_mut(digest) {
                held.intents = held.intents.saturating_sub(1);
            }
            self.tidy(&intent.repo, digest);
        }
    }
}

impl State for Ledger {
    type Op = LedgerOp;

    fn apply(&mut self, op: &LedgerOp) {
        match op {
            LedgerOp::Quota { q } => self.quota = *q,
            LedgerOp::Reserve { u, n, t } => {
                let before = match n {
                    0 => self.reserved.remove(u),
                    n => self.reserved.insert(u.clone(), (*n, *t)),
                };
                let before = before.map_or(0, |(bytes, _)| bytes);
                self.reserved_bytes = self.reserved_bytes.saturating_sub(before) + n;
            }
            LedgerOp::Intent { i, k, r, d, t } => {
                if self.intents.contains_key(i) {
                    return;
                }
                let (kind, repo, since_ms) = (*k, r.clone(), *t);
                let digests: BTreeMap<Digest, u64> = d.iter().copied().collect();
                for (digest, size) in &digests {
                    self.hold(digest, *size).intents += 1;
                }
                let digests = digests.into_iter().collect();
                self.intents.insert(i.clone(), Intent { kind, repo, digests, since_ms });
            }
            LedgerOp::Settle { i, r, s } => self.settle(i, r, s),
            LedgerOp::Hold { r, d, n, s } => {
                self.see(r, Seen { d: *d, here: true, seq: *s }, Some(*n));
            }
            LedgerOp::Lack { r, d, s } => {
                self.see(r, Seen { d: *d, here: false, seq: *s }, None);
                self.tidy(r, d);
            }
            LedgerOp::Open { by, t } => {
                self.open.insert(by.clone(), *t);
            }
            LedgerOp::Bump { by, end } => {
                self.counter += 1;
                if *end {
                    self.open.remove(by);
                }
            }
            LedgerOp::Counter { n } => self.counter = *n,
        }
    }

    fn snapshot(&self) -> Vec<LedgerOp> {
        let mut ops =
            vec![LedgerOp::Quota { q: self.quota }, LedgerOp::Counter { n: self.counter }];
        for (by, t) in &self.open {
            ops.push(LedgerOp::Open { by: by.clone(), t: *t });
        }
        for (u, (n, t)) in &self.reserved {
            ops.push(LedgerOp::Reserve { u: u.clone(), n: *n, t: *t });
        }
        for (i, intent) in &self.intents {
            let (k, r, t) = (intent.kind, intent.repo.clone(), intent.since_ms);
            ops.push(LedgerOp::Intent { i: i.clone(), k, r, d: intent.digests.clone(), t });
        }
        for (d, held) in &self.held {
            for (r, mark) in &held.marks {
                let (r, d, s) = (r.clone(), *d, mark.seq);
                ops.push(match mark.here {
                    true => LedgerOp::Hold { r, d, n: held.size, s },
                    false => LedgerOp::Lack { r, d, s },
                });
            }
        }
        ops
    }

    fn weight(&self) -> usize {
        let marks: usize = self.held.values().map(|held| held.marks.len()).sum();
        self.held.len() * 200 + marks * 120 + self.intents.len() * 400 + 512
    }
}
