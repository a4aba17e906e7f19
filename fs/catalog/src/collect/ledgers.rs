//! What others left undone in ledgers and in the directory.

use std::sync::Arc;

use super::Round;
use crate::catalog::{Catalog, millis};
use crate::cell::{self, Cell};
use crate::directory::Directory;
use crate::error::Result;
use crate::ledger::{Intent, Ledger, LedgerOp, Seen};
use crate::log::{Decided, Moment};
use crate::names::{OwnerName, UploadId};
use crate::repo::{Repo, RepoOp};
use crate::upload::{Session, session_path};

/// What is under way for longer was left behind: longer than any request takes.
const LEFT_MS: u64 = 10 * 60 * 1000;

impl Round<'_> {
    fn is_left(&self, since_ms: u64) -> bool {
        since_ms.saturating_add(LEFT_MS) <= self.catalog.now_ms()
    }

    /// Finishes intents, takes back notes and reservations whose makers are gone.
    pub(super) async fn ledgers(&mut self) -> Result<()> {
        for owner in self.catalog.owners_on_store().await? {
            let (ledger, _) = self.catalog.ledger(owner.as_str()).state_now().await?;
            for (id, intent) in &ledger.intents {
                if !self.is_left(intent.since_ms) {
                    continue;
                }
                self.report.intents += 1;
                if !self.options.dry_run {
                    self.catalog.finish_intent(&owner, id, intent).await?;
                }
            }
            if !self.options.dry_run {
                self.notes(&owner, &ledger).await?;
                self.reservations(&owner, &ledger).await?;
            }
            self.pause().await?;
        }
        Ok(())
    }

    async fn notes(&self, owner: &OwnerName, ledger: &Arc<Ledger>) -> Result<()> {
        let left = ledger.open.iter().filter(|(_, since)| self.is_left(**since));
        let left: Vec<String> = left.map(|(by, _)| by.clone()).collect();
        if left.is_empty() {
            return Ok(());
        }
        let decide = move |ledger: &Ledger, _: Moment| {
            let open = left.iter().filter(|by| ledger.open.contains_key(*by));
            let ops = open.map(|by| LedgerOp::Bump { by: by.clone(), end: true }).collect();
            Ok(Decided { ops, answer: () })
        };
        let slot = self.catalog.ledger(owner.as_str());
        slot.change(&self.catalog.inner.writer, decide).await?;
        Ok(())
    }

    /// A reservation is made before or after its session; one without is left when it is old.
    async fn reservations(&self, owner: &OwnerName, ledger: &Arc<Ledger>) -> Result<()> {
        let inner = &self.catalog.inner;
        let expiry = millis(inner.options.upload_expiry);
        let now_ms = self.catalog.now_ms();
        let old = ledger.reserved.iter().filter(|(_, (_, t))| t.saturating_add(expiry) <= now_ms);
        let old: Vec<UploadId> = old.map(|(upload, _)| upload.clone()).collect();
        for upload in old {
            let path = session_path(&upload);
            let session: Option<Cell<Session>> =
                cell::read_again(&*inner.store.meta, &inner.writer, &path).await?;
            if session.is_none() {
                self.catalog.release(owner, &upload).await?;
            }
        }
        Ok(())
    }

    /// Directory entries that somebody opened and never closed.
    pub(super) async fn entries(&mut self) -> Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        let directory: Arc<Directory> = self.catalog.directory().state_now().await?.0;
        for (owner, entry) in &directory.owners {
            for (id, since) in &entry.open {
                if self.is_left(*since) {
                    self.catalog.close_left_open(owner, id).await?;
                }
            }
        }
        Ok(())
    }
}

impl Catalog {
    /// Finishes somebody's intent: forbids the repository to carry it out later, looks what came
    /// of it, and settles.
    pub(crate) async fn finish_intent(
        &self,
        owner: &OwnerName,
        id: &str,
        intent: &Intent,
    ) -> Result<()> {
        let (i, digests) = (id.to_owned(), intent.digests.clone());
        let void = move |state: &Repo, moment: Moment| {
            let is_void = state.voided.contains_key(&i);
            let op = RepoOp::Void { i: i.clone(), t: moment.now_ms };
            let ops = (!is_void).then_some(op).into_iter().collect();
            let here: Vec<_> = digests.iter().map(|(d, _)| (*d, state.holds(d))).collect();
            Ok(Decided { ops, answer: here })
        };
        let voided = self.repo(&intent.repo).change(&self.inner.writer, void).await?;
        let seq = voided.seq;
        let seen: Vec<Seen> =
            voided.answer.into_iter().map(|(d, here)| Seen { d, here, seq }).collect();
        let (i, r) = (id.to_owned(), intent.repo.clone());
        let settle = move |ledger: &Ledger, _: Moment| {
            let op = LedgerOp::Settle { i: i.clone(), r: r.clone(), s: seen.clone() };
            let ops = ledger.intents.contains_key(&i).then_some(op).into_iter().collect();
            Ok(Decided { ops, answer: () })
        };
        self.ledger(owner.as_str()).change(&self.inner.writer, settle).await?;
        Ok(())
    }
}
