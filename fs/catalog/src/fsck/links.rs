//! Repositories against ledgers and the directory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::Check;
use crate::digest::Digest;
use crate::directory::Directory;
use crate::error::{CatalogError, Result};
use crate::ledger::{Ledger, LedgerOp};
use crate::log::{Decided, Moment};
use crate::names::{OwnerName, RepoName};
use crate::repo::{Repo, RepoOp};

/// What a repository holds, and the number of the state that says so.
type Holding = (HashMap<Digest, u64>, u64);

impl Check<'_> {
    pub(super) async fn links(&mut self) -> Result<()> {
        let mut owners: BTreeMap<OwnerName, BTreeMap<RepoName, Holding>> = BTreeMap::new();
        for owner in self.catalog.owners_on_store().await? {
            owners.insert(owner, BTreeMap::new());
        }
        for repo in self.catalog.repos_on_store().await? {
            let (state, seq) = match self.catalog.repo(&repo).state_now().await {
                Ok(found) => found,
                Err(CatalogError::Corrupt { object, why }) => {
                    self.find(object, why, true);
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.report.repositories += 1;
            self.repository(&repo, &state).await?;
            let held: HashMap<Digest, u64> = state.held().collect();
            for (digest, size) in &held {
                self.held.entry(*digest).or_insert_with(|| (*size, repo.clone()));
            }
            owners.entry(repo.owner()).or_default().insert(repo, (held, seq));
        }
        for (owner, repos) in owners {
            self.report.owners += 1;
            self.ledger(&owner, repos).await?;
        }
        Ok(())
    }

    /// Tags and manifests within a repository, and its entry in the directory.
    async fn repository(&mut self, repo: &RepoName, state: &Arc<Repo>) -> Result<()> {
        for (tag, (digest, _)) in &state.tags {
            if !state.manifests.contains_key(digest) {
                self.find(repo, format!("tag {tag} names {digest}, which is not there"), true);
            }
        }
        for (digest, entry) in &state.manifests {
            let blobs = entry.links.config.iter().chain(&entry.links.layers);
            let missing = blobs.filter(|blob| !state.holds(blob)).count();
            if missing > 0 {
                let problem = format!("manifest {digest} lacks {missing} blobs: it is sparse");
                self.find(repo, problem, false);
            }
        }
        let is_listed = |directory: &Directory| directory.repos.contains_key(repo);
        let is_listed = self.catalog.directory().look(Duration::ZERO, is_listed).await?;
        if !state.manifests.is_empty() && !is_listed {
            if self.repair {
                let g = self.catalog.list(repo).await?;
                let decide = move |_: &Repo, _: Moment| {
                    Ok(Decided { ops: vec![RepoOp::List { g }], answer: () })
                };
                self.catalog.repo(repo).change(&self.catalog.inner.writer, decide).await?;
            }
            self.note(repo, "the directory does not list it", false, self.repair);
        }
        if state.manifests.is_empty() && is_listed {
            let repaired = self.repair && self.catalog.unlist_if_empty(repo).await?;
            self.note(repo, "the directory lists it, and it has no manifests", false, repaired);
        }
        Ok(())
    }

    async fn ledger(
        &mut self,
        owner: &OwnerName,
        repos: BTreeMap<RepoName, Holding>,
    ) -> Result<()> {
        let slot = self.catalog.ledger(owner.as_str());
        let ledger = match slot.state_now().await {
            Ok((ledger, _)) => ledger,
            Err(CatalogError::Corrupt { object, why }) => {
                self.find(object, why, true);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut ops = Vec::new();
        let mut known: HashMap<(&RepoName, &Digest), u64> = HashMap::new();
        for (repo, digest, size) in ledger.links() {
            known.insert((repo, digest), size);
            let seq = repos.get(repo).map_or(0, |(_, seq)| *seq);
            let is_held = repos.get(repo).is_some_and(|(held, _)| held.contains_key(digest));
            if !is_held && !ledger.is_moving(repo, digest) {
                let problem = format!("it charges {digest} for {repo}, which does not have it");
                self.note(format!("ledger of {owner}"), problem, false, self.repair);
                ops.push(LedgerOp::Lack { r: repo.clone(), d: *digest, s: seq });
            }
        }
        for (repo, (held, seq)) in &repos {
            for (digest, size) in held {
                if known.contains_key(&(repo, digest)) || ledger.is_moving(repo, digest) {
                    continue;
                }
                let problem = format!("it lacks {digest}, which {repo} has");
                self.note(format!("ledger of {owner}"), problem, true, self.repair);
                ops.push(LedgerOp::Hold { r: repo.clone(), d: *digest, n: *size, s: *seq });
            }
        }
        if self.repair && !ops.is_empty() {
            let decide = move |ledger: &Ledger, _: Moment| {
                let is_still = |op: &&LedgerOp| match op {
                    LedgerOp::Lack { r, d, .. } | LedgerOp::Hold { r, d, .. } => {
                        !ledger.is_moving(r, d)
                    }
                    _ => true,
                };
                let ops = ops.iter().filter(is_still).cloned().collect();
                Ok(Decided { ops, answer: () })
            };
            slot.change(&self.catalog.inner.writer, decide).await?;
        }
        Ok(())
    }
}
