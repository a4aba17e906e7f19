//! The directory: which owners and repositories there are, so that a list need not open each.
//!
//! Of repositories it lists those with manifests. Of an owner it says which edition of owner
//! record and rights is the newest, and whether there is anything in them for others, so that
//! they are read again only after they changed. The objects themselves are the truth: an entry
//! is opened before they change and closed behind it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::log::State;
use crate::names::{OwnerName, RepoName};

/// What is known of an owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnerEntry {
    /// The edition of record and rights.
    pub(crate) edition: u64,
    /// Changes under way, by id, and since when: nobody may rely on what is remembered.
    pub(crate) open: BTreeMap<String, u64>,
    /// Nobody but the user of that name can have a right here.
    pub(crate) is_private: bool,
}

/// One change of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum DirectoryOp {
    /// A repository is listed; its entry gets the number `g`.
    List { r: RepoName, g: u64 },
    /// It is not, if its entry still has this number.
    Unlist { r: RepoName, g: u64 },
    /// Record or rights of an owner are about to change.
    Open { o: OwnerName, i: String, t: u64 },
    /// They have, or not: edition `e` from now on. `private` is only said by whoever was alone
    /// at it.
    Close { o: OwnerName, i: String, e: u64, private: bool },
}

/// The state of the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) repos: BTreeMap<RepoName, u64>,
    pub(crate) owners: BTreeMap<OwnerName, OwnerEntry>,
}

impl State for Directory {
    type Op = DirectoryOp;

    fn apply(&mut self, op: &DirectoryOp) {
        match op {
            DirectoryOp::List { r, g } => {
                self.repos.insert(r.clone(), *g);
            }
            DirectoryOp::Unlist { r, g } => {
                if self.repos.get(r) == Some(g) {
                    self.repos.remove(r);
                }
            }
            DirectoryOp::Open { o, i, t } => {
                self.owners.entry(o.clone()).or_default().open.insert(i.clone(), *t);
            }
            DirectoryOp::Close { o, i, e, private } => {
                let entry = self.owners.entry(o.clone()).or_default();
                entry.open.remove(i);
                entry.edition = entry.edition.max(*e);
                entry.is_private = *private;
            }
        }
    }

    fn snapshot(&self) -> Vec<DirectoryOp> {
        let repos = self.repos.iter();
        let mut ops: Vec<_> =
            repos.map(|(r, g)| DirectoryOp::List { r: r.clone(), g: *g }).collect();
        for (o, entry) in &self.owners {
            let (e, private) = (entry.edition, entry.is_private);
            let (o, i) = (o.clone(), String::new());
            ops.push(DirectoryOp::Close { o: o.clone(), i, e, private });
            let open = entry.open.iter();
            ops.extend(open.map(|(i, t)| DirectoryOp::Open { o: o.clone(), i: i.clone(), t: *t }));
        }
        ops
    }

    fn weight(&self) -> usize {
        self.repos.len() * 120 + self.owners.len() * 160 + 512
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_the_state_and_an_old_removal_counts_for_nothing() {
        let repo: RepoName = "a/x".parse().expect("a name");
        let owner = repo.owner();
        let mut directory = Directory::default();
        for op in [
            DirectoryOp::List { r: repo.clone(), g: 1 },
            DirectoryOp::List { r: repo.clone(), g: 4 },
            DirectoryOp::Unlist { r: repo.clone(), g: 1 },
            DirectoryOp::Open { o: owner.clone(), i: "x".to_owned(), t: 1 },
            DirectoryOp::Open { o: owner.clone(), i: "y".to_owned(), t: 2 },
            DirectoryOp::Close { o: owner.clone(), i: "x".to_owned(), e: 7, private: false },
        ] {
            directory.apply(&op);
        }
        assert_eq!(directory.repos.get(&repo), Some(&4));
        assert_eq!(directory.owners[&owner].open.len(), 1);
        let mut again = Directory::default();
        directory.snapshot().iter().for_each(|op| again.apply(op));
        assert_eq!(directory, again);
    }
}
