//! Manifests that nothing keeps, and links that no manifest uses.

use std::collections::HashSet;

use object_store::path::Path;

use super::Round;
use crate::catalog::{Catalog, millis, repo_at};
use crate::digest::Digest;
use crate::error::Result;
use crate::log::{Decided, Moment};
use crate::names::RepoName;
use crate::remove::{INTENT_DIGESTS_MAX, Removed};
use crate::repo::{Ages, Repo, RepoOp};

impl Catalog {
    /// Every repository that ever was, by name.
    pub(crate) async fn repos_on_store(&self) -> Result<Vec<RepoName>> {
        let objects = self.objects(&*self.inner.store.meta, &Path::from("repos")).await?;
        let mut repos: Vec<RepoName> =
            objects.iter().filter_map(|(path, _, _)| repo_at(path)).collect();
        repos.sort_unstable();
        Ok(repos)
    }

    fn ages(&self, now_ms: u64) -> Ages {
        let options = &self.inner.options;
        Ages {
            now_ms,
            grace_ms: millis(options.grace),
            untagged_ms: millis(options.untagged_expiry),
        }
    }
}

impl Round<'_> {
    pub(super) async fn repos(&mut self) -> Result<()> {
        for repo in self.catalog.repos_on_store().await? {
            self.repo(&repo).await?;
            self.pause().await?;
        }
        Ok(())
    }

    async fn repo(&mut self, repo: &RepoName) -> Result<()> {
        let (state, _) = self.catalog.repo(repo).state_now().await?;
        let ages = self.catalog.ages(self.catalog.now_ms());
        let mut due: Vec<Digest> = state.due_manifests(&ages).into_iter().collect();
        due.extend(state.due_links(&ages));
        if self.options.dry_run {
            let all: HashSet<Digest> = due.into_iter().collect();
            let (_, manifests, links) = state.take(&all, &ages);
            self.report.manifests += manifests;
            self.report.unlinked += links;
            return Ok(());
        }
        drop(state);
        for batch in due.chunks(INTENT_DIGESTS_MAX) {
            self.take(repo, batch).await?;
        }
        let unused = |state: &Repo| !state.unused_links(&ages).is_empty();
        if self.catalog.repo(repo).look(self.catalog.age_max(), unused).await? {
            self.condemn_links(repo).await?;
        }
        self.catalog.unlist_if_empty(repo).await?;
        Ok(())
    }

    /// Takes what is still due when it comes to it.
    async fn take(&mut self, repo: &RepoName, due: &[Digest]) -> Result<()> {
        let all: HashSet<Digest> = due.iter().copied().collect();
        let catalog = self.catalog.clone();
        let decide = move |state: &Repo, moment: Moment| {
            let (ops, manifests, links) = state.take(&all, &catalog.ages(moment.now_ms));
            let mut after = (state.clone(), Vec::new());
            for op in &ops {
                crate::log::State::apply(&mut after.0, op);
            }
            after.1.extend(all.iter().map(|d| (*d, after.0.holds(d))));
            let answer = Removed { answer: (manifests, links), seen: after.1 };
            Ok(Decided { ops, answer })
        };
        let taken = self.catalog.remove(repo, due.to_vec(), |_| Ok(()), decide).await?;
        self.report.manifests += taken.0;
        self.report.unlinked += taken.1;
        Ok(())
    }

    async fn condemn_links(&self, repo: &RepoName) -> Result<()> {
        let catalog = self.catalog.clone();
        let decide = move |state: &Repo, moment: Moment| {
            let unused = state.unused_links(&catalog.ages(moment.now_ms));
            let op = RepoOp::Condemn { d: unused.clone(), t: moment.now_ms };
            let ops = (!unused.is_empty()).then_some(op).into_iter().collect();
            Ok(Decided { ops, answer: () })
        };
        self.catalog.repo(repo).change(&self.catalog.inner.writer, decide).await?;
        Ok(())
    }
}
