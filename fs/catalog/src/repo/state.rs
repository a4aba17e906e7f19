//! The state of a repository, and what each operation does to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::op::RepoOp;
use crate::digest::Digest;
use crate::log::State;
use crate::names::Tag;
use crate::types::ManifestLinks;

/// Ids of voided intents are kept so long: longer than any process waits.
const VOID_MS: u64 = 7 * 24 * 3600 * 1000;

/// A blob that is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) size: u64,
    pub(crate) linked_ms: u64,
    pub(crate) condemned_ms: Option<u64>,
}

/// A manifest that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) size: u64,
    pub(crate) media_type: Arc<str>,
    pub(crate) pushed_ms: u64,
    pub(crate) links: Arc<ManifestLinks>,
    /// Since when no tag, index or subject keeps it.
    pub(crate) unkept_ms: Option<u64>,
    /// Its subject was there and was removed.
    pub(crate) subject_gone: bool,
}

/// The state of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repo {
    pub(crate) links: HashMap<Digest, Link>,
    pub(crate) manifests: BTreeMap<Digest, Entry>,
    pub(crate) tags: BTreeMap<Tag, (Digest, u64)>,
    pub(crate) voided: BTreeMap<String, u64>,
    pub(crate) listed: Option<u64>,
    pub(crate) unlisted: u64,
    /// Blob to the manifests that use it.
    users: HashMap<Digest, BTreeSet<Digest>>,
    /// Manifest to the indexes that name it.
    parents: HashMap<Digest, BTreeSet<Digest>>,
    /// Subject to its referrers, whether it is there or not.
    referrers: HashMap<Digest, BTreeSet<Digest>>,
    /// Manifest to its tags.
    tagged: HashMap<Digest, BTreeSet<Tag>>,
    /// Bytes that the long lists of manifests take.
    heap: usize,
}

impl Repo {
    /// Whether it holds anything at all.
    pub(crate) fn exists(&self) -> bool {
        !self.links.is_empty() || !self.manifests.is_empty()
    }

    /// Length of a blob or manifest that is here.
    pub(crate) fn size_of(&self, digest: &Digest) -> Option<u64> {
        let link = self.links.get(digest).map(|link| link.size);
        link.or_else(|| self.manifests.get(digest).map(|entry| entry.size))
    }

    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.links.contains_key(digest) || self.manifests.contains_key(digest)
    }

    /// Everything that is charged for this repository, each digest once.
    pub(crate) fn held(&self) -> impl Iterator<Item = (Digest, u64)> + '_ {
        let links = self.links.iter().map(|(digest, link)| (*digest, link.size));
        let manifests = self.manifests.iter().map(|(digest, entry)| (*digest, entry.size));
        links.chain(manifests.filter(|(digest, _)| !self.links.contains_key(digest)))
    }

    /// A manifest that uses a blob.
    pub(crate) fn user_of(&self, blob: &Digest) -> Option<Digest> {
        self.users.get(blob).and_then(|users| users.first().copied())
    }

    /// An index that names a manifest.
    pub(crate) fn parent_of(&self, manifest: &Digest) -> Option<Digest> {
        self.parents.get(manifest).and_then(|parents| parents.first().copied())
    }

    pub(crate) fn parents_of(&self, manifest: &Digest) -> Option<&BTreeSet<Digest>> {
        self.parents.get(manifest)
    }

    pub(crate) fn referrers_of(&self, subject: &Digest) -> impl Iterator<Item = &Digest> {
        self.referrers.get(subject).into_iter().flatten()
    }

    pub(crate) fn tags_of(&self, manifest: &Digest) -> impl Iterator<Item = &Tag> {
        self.tagged.get(manifest).into_iter().flatten()
    }

    /// Whether a tag, an index or its subject keeps a manifest.
    pub(crate) fn is_kept(&self, digest: &Digest, entry: &Entry) -> bool {
        let by_subject = |subject| self.manifests.contains_key(subject);
        self.tagged.contains_key(digest)
            || self.parents.contains_key(digest)
            || entry.links.subject.as_ref().is_some_and(by_subject)
    }

    /// Notes whether something keeps a manifest from now on.
    fn reckon(&mut self, digest: &Digest, now_ms: u64) {
        let Some(entry) = self.manifests.get(digest) else {
            return;
        };
        let unkept = match self.is_kept(digest, entry) {
            true => None,
            false => entry.unkept_ms.or(Some(now_ms)),
        };
        let subject_is_here = entry
            .links
            .subject
            .as_ref()
            .is_some_and(|subject| self.manifests.contains_key(subject));
        if let Some(entry) = self.manifests.get_mut(digest) {
            entry.unkept_ms = unkept;
            entry.subject_gone &= !subject_is_here;
        }
    }

    fn add_manifest(&mut self, digest: Digest, entry: Entry) {
        let now_ms = entry.pushed_ms;
        self.remove_edges(&digest);
        let links = Arc::clone(&entry.links);
        self.heap += heap_of(&links);
        self.manifests.insert(digest, entry);
        for blob in links.config.iter().chain(&links.layers) {
            self.users.entry(*blob).or_default().insert(digest);
            if let Some(link) = self.links.get_mut(blob) {
                link.condemned_ms = None;
            }
        }
        for child in &links.children {
            self.parents.entry(*child).or_default().insert(digest);
            self.reckon(child, now_ms);
        }
        if let Some(subject) = links.subject {
            self.referrers.entry(subject).or_default().insert(digest);
        }
        self.reckon(&digest, now_ms);
        for referrer in self.referrers.get(&digest).cloned().unwrap_or_default() {
            self.reckon(&referrer, now_ms);
        }
    }

    /// Forgets what a manifest names, if it is there.
    fn remove_edges(&mut self, digest: &Digest) -> Option<Arc<ManifestLinks>> {
        let links = Arc::clone(&self.manifests.get(digest)?.links);
        self.heap = self.heap.saturating_sub(heap_of(&links));
        for blob in links.config.iter().chain(&links.layers) {
            remove_from(&mut self.users, blob, digest);
        }
        for child in &links.children {
            remove_from(&mut self.parents, child, digest);
        }
        if let Some(subject) = &links.subject {
            remove_from(&mut self.referrers, subject, digest);
        }
        Some(links)
    }

    fn drop_manifest(&mut self, digest: &Digest, now_ms: u64) {
        let Some(links) = self.remove_edges(digest) else {
            return;
        };
        self.manifests.remove(digest);
        for tag in self.tagged.remove(digest).unwrap_or_default() {
            self.tags.remove(&tag);
        }
        for child in &links.children {
            self.reckon(child, now_ms);
        }
        for referrer in self.referrers.get(digest).cloned().unwrap_or_default() {
            if let Some(entry) = self.manifests.get_mut(&referrer) {
                entry.subject_gone = true;
            }
            self.reckon(&referrer, now_ms);
        }
    }

    fn point(&mut self, tag: &Tag, to: Option<Digest>, now_ms: u64) {
        let before = match to {
            Some(digest) => self.tags.insert(tag.clone(), (digest, now_ms)),
            None => self.tags.remove(tag),
        };
        if let Some((before, _)) = before {
            remove_from(&mut self.tagged, &before, tag);
            if to != Some(before) {
                self.reckon(&before, now_ms);
            }
        }
        if let Some(digest) = to {
            self.tagged.entry(digest).or_default().insert(tag.clone());
            self.reckon(&digest, now_ms);
        }
    }
}

fn remove_from<T: Ord>(sets: &mut HashMap<Digest, BTreeSet<T>>, key: &Digest, item: &T) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(item);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

/// Memory of what a manifest names, with the indexes over it.
fn heap_of(links: &ManifestLinks) -> usize {
    let digests = links.layers.len() + links.children.len() + 2;
    let texts: usize = links.annotations.iter().map(|(k, v)| k.len() + v.len() + 64).sum();
    digests * 260 + texts
}

impl State for Repo {
    type Op = RepoOp;

    fn apply(&mut self, op: &RepoOp) {
        match op {
            RepoOp::Link { d, n, t } => {
                let link = Link { size: *n, linked_ms: *t, condemned_ms: None };
                self.links.insert(*d, link);
            }
            RepoOp::Condemn { d, t } => {
                for digest in d {
                    if let Some(link) = self.links.get_mut(digest) {
                        link.condemned_ms = Some(*t);
                    }
                }
            }
            RepoOp::Condemned { d, t } => {
                if let Some(link) = self.links.get_mut(d) {
                    link.condemned_ms = Some(*t);
                }
            }
            RepoOp::Unlink { d } => {
                self.links.remove(d);
            }
            RepoOp::Manifest { d, n, m, t, l } => {
                let entry = Entry {
                    size: *n,
                    media_type: m.as_str().into(),
                    pushed_ms: *t,
                    links: Arc::new(l.as_ref().clone()),
                    unkept_ms: None,
                    subject_gone: false,
                };
                self.add_manifest(*d, entry);
            }
            RepoOp::Drop { d, t } => self.drop_manifest(d, *t),
            RepoOp::Tag { g, d, t } => self.point(g, Some(*d), *t),
            RepoOp::Untag { g, t } => self.point(g, None, *t),
            RepoOp::Void { i, t } => {
                self.voided.retain(|_, voided| voided.saturating_add(VOID_MS) > *t);
                self.voided.insert(i.clone(), *t);
            }
            RepoOp::List { g } => self.listed = Some(*g),
            RepoOp::Unlist { g } => {
                self.listed = None;
                self.unlisted = self.unlisted.max(*g);
            }
            RepoOp::Mark { d, u, s } => {
                if let Some(entry) = self.manifests.get_mut(d) {
                    (entry.unkept_ms, entry.subject_gone) = (*u, *s);
                }
            }
        }
    }

    fn snapshot(&self) -> Vec<RepoOp> {
        let mut ops = Vec::new();
        for (d, link) in &self.links {
            ops.push(RepoOp::Link { d: *d, n: link.size, t: link.linked_ms });
        }
        for (d, entry) in &self.manifests {
            let l = Box::new(entry.links.as_ref().clone());
            let (n, m, t) = (entry.size, entry.media_type.to_string(), entry.pushed_ms);
            ops.push(RepoOp::Manifest { d: *d, n, m, t, l });
        }
        for (g, (d, t)) in &self.tags {
            ops.push(RepoOp::Tag { g: g.clone(), d: *d, t: *t });
        }
        // Behind the manifests and tags, which change these.
        for (d, link) in &self.links {
            if let Some(t) = link.condemned_ms {
                ops.push(RepoOp::Condemned { d: *d, t });
            }
        }
        for (d, entry) in &self.manifests {
            if entry.unkept_ms.is_some() || entry.subject_gone {
                let (u, s) = (entry.unkept_ms, entry.subject_gone);
                ops.push(RepoOp::Mark { d: *d, u, s });
            }
        }
        ops.extend(self.voided.iter().map(|(i, t)| RepoOp::Void { i: i.clone(), t: *t }));
        if self.unlisted > 0 {
            ops.push(RepoOp::Unlist { g: self.unlisted });
        }
        ops.extend(self.listed.map(|g| RepoOp::List { g }));
        ops
    }

    fn weight(&self) -> usize {
        let tags = self.tags.len() * 400;
        tags + self.links.len() * 160 + self.manifests.len() * 500 + self.heap + 512
    }
}
