//! Intents of this instance, and what it owes to ledgers when their work is done.
//!
//! Settling waits a little and is written along with the next change of the same ledger: until
//! then the intent stands, which charges and protects just as well. The change counter works the
//! same way. Before the first change of an owner's repositories the ledger notes that somebody is
//! at it; the note stands for all changes that follow closely, and the counter grows when it is
//! taken away. So no change goes unnoticed, and a run of them costs two swaps.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::error::{CatalogError, Result};
use crate::ledger::{IntentKind, Ledger, LedgerOp, Seen};
use crate::log::{Decided, Moment};
use crate::names::{OwnerName, RepoName, UploadId};
use crate::types::Quota;

/// A note that somebody is at it is made anew after this.
const NOTE_TIME: Duration = Duration::from_secs(60);
/// Settlements that wait at most, before somebody settles them.
const OWED_MAX: usize = 200;

/// What this instance owes, by owner.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    owners: Mutex<HashMap<OwnerName, Debt>>,
}

#[derive(Debug, Default)]
struct Debt {
    settles: Vec<LedgerOp>,
    current: Option<Note>,
    past: Vec<Note>,
    /// Something changed since the counter last grew.
    changed: bool,
}

#[derive(Debug)]
struct Note {
    id: String,
    /// The ledger has it.
    is_written: bool,
    until: Duration,
    /// Changes under its protection that are under way.
    active: u32,
}

/// A change of an owner's repositories that is under way.
#[derive(Debug)]
pub(crate) struct Changing {
    catalog: Catalog,
    owner: OwnerName,
    note: String,
    needs_writing: bool,
}

impl Drop for Changing {
    fn drop(&mut self) {
        let mut owners = self.catalog.inner.owed.owners.lock();
        let Some(debt) = owners.get_mut(&self.owner) else {
            return;
        };
        debt.changed = true;
        let mut notes = debt.current.iter_mut().chain(&mut debt.past);
        if let Some(note) = notes.find(|note| note.id == self.note) {
            note.active = note.active.saturating_sub(1);
        }
    }
}

/// An intent that the ledger has.
#[derive(Debug)]
pub(crate) struct Intended {
    pub(crate) id: String,
    pub(crate) repo: RepoName,
    pub(crate) changing: Changing,
}

impl Debt {
    fn begin(&mut self, now: Duration, new_id: String) -> (String, bool) {
        if let Some(note) = self.current.take_if(|note| note.until <= now) {
            self.past.push(note);
        }
        let until = now + NOTE_TIME;
        let new = || Note { id: new_id, is_written: false, until, active: 0 };
        let note = self.current.get_or_insert_with(new);
        note.active += 1;
        (note.id.clone(), !note.is_written)
    }

    fn is_empty(&self) -> bool {
        self.settles.is_empty()
            && !self.changed
            && self.past.is_empty()
            && self.current.as_ref().is_none_or(|note| note.active > 0)
    }

    /// Takes out what can be written now: settlements, and notes that nobody needs.
    fn take(&mut self) -> (Vec<LedgerOp>, Vec<Note>, bool) {
        if let Some(note) = self.current.take_if(|note| note.active == 0) {
            self.past.push(note);
        }
        let done = |note: &mut Note| note.active == 0;
        let notes: Vec<Note> = self.past.extract_if(.., done).collect();
        (std::mem::take(&mut self.settles), notes, std::mem::take(&mut self.changed))
    }
}

impl Catalog {
    /// Begins a change of an owner's repositories that is to be counted.
    pub(crate) fn begin_change(&self, owner: &OwnerName) -> Changing {
        let now = self.inner.options.seams.clock.monotonic();
        let id = self.inner.writer.id();
        let mut owners = self.inner.owed.owners.lock();
        let (note, needs_writing) = owners.entry(owner.clone()).or_default().begin(now, id);
        Changing { catalog: self.clone(), owner: owner.clone(), note, needs_writing }
    }

    fn is_noted(&self, changing: &mut Changing) {
        changing.needs_writing = false;
        let mut owners = self.inner.owed.owners.lock();
        let debt = owners.entry(changing.owner.clone()).or_default();
        let mut notes = debt.current.iter_mut().chain(&mut debt.past);
        if let Some(note) = notes.find(|note| note.id == changing.note) {
            note.is_written = true;
        }
    }

    /// Begins a change that needs no intent, with the note in the ledger when this returns.
    pub(crate) async fn noted_change(&self, owner: &OwnerName) -> Result<Changing> {
        let mut changing = self.begin_change(owner);
        if changing.needs_writing {
            let by = changing.note.clone();
            let open = move |_: &Ledger, moment: Moment| {
                let ops = vec![LedgerOp::Open { by: by.clone(), t: moment.now_ms }];
                Ok(Decided { ops, answer: () })
            };
            self.ledger(owner.as_str()).change(&self.inner.writer, open).await?;
            self.is_noted(&mut changing);
        }
        Ok(changing)
    }

    /// Writes an intent, with everything else that the owner's ledger is owed. New links are
    /// charged here or refused; what `upload` reserved goes into them.
    pub(crate) async fn intend(
        &self,
        kind: IntentKind,
        repo: &RepoName,
        digests: Vec<(Digest, u64)>,
        upload: Option<&UploadId>,
    ) -> Result<Intended> {
        let owner = repo.owner();
        let mut changing = self.begin_change(&owner);
        let settles = self.take_settles(&owner);
        let id = self.inner.writer.id();
        let intent = Wanted {
            id: id.clone(),
            kind,
            repo: repo.clone(),
            digests,
            upload: upload.cloned(),
            note: changing.needs_writing.then(|| changing.note.clone()),
            settles: settles.clone(),
            default_quota: self.inner.options.default_quota,
        };
        let decide = move |ledger: &Ledger, moment: Moment| intent.decide(ledger, moment);
        let ledger = self.ledger(owner.as_str());
        if let Err(error) = ledger.change(&self.inner.writer, decide).await {
            self.owe(&owner, settles);
            return Err(error);
        }
        self.is_noted(&mut changing);
        Ok(Intended { id, repo: repo.clone(), changing })
    }

    /// Says what became of an intent. It is written soon.
    pub(crate) async fn settle(&self, intended: Intended, seen: Vec<Seen>) {
        let Intended { id, repo, changing } = intended;
        let owner = repo.owner();
        let waiting = self.owe(&owner, vec![LedgerOp::Settle { i: id, r: repo, s: seen }]);
        drop(changing);
        if waiting > OWED_MAX
            && let Err(error) = self.flush_owner(&owner).await
        {
            tracing::debug!(%error, %owner, "settling waits");
        }
    }

    fn owe(&self, owner: &OwnerName, settles: Vec<LedgerOp>) -> usize {
        let mut owners = self.inner.owed.owners.lock();
        let debt = owners.entry(owner.clone()).or_default();
        debt.settles.extend(settles);
        debt.settles.len()
    }

    fn take_settles(&self, owner: &OwnerName) -> Vec<LedgerOp> {
        let mut owners = self.inner.owed.owners.lock();
        let debt = owners.get_mut(owner);
        debt.map(|debt| std::mem::take(&mut debt.settles)).unwrap_or_default()
    }

    /// Settles what this instance owes, now. For the end of a graceful shutdown.
    ///
    /// # Errors
    /// What the store says; others will finish then.
    pub async fn flush(&self) -> Result<()> {
        let owners: Vec<OwnerName> = {
            let mut owners = self.inner.owed.owners.lock();
            owners.retain(|_, debt| !debt.is_empty() || debt.current.is_some());
            owners.keys().cloned().collect()
        };
        let mut failed = None;
        for owner in owners {
            if let Err(error) = self.flush_owner(&owner).await {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Settles what is owed to one ledger.
    pub(crate) async fn flush_owner(&self, owner: &OwnerName) -> Result<()> {
        let (settles, notes, changed) = {
            let mut owners = self.inner.owed.owners.lock();
            let Some(debt) = owners.get_mut(owner) else {
                return Ok(());
            };
            debt.take()
        };
        if settles.is_empty() && notes.is_empty() && !changed {
            return Ok(());
        }
        let mut ops = settles.clone();
        for note in &notes {
            ops.push(LedgerOp::Bump { by: note.id.clone(), end: true });
        }
        if notes.is_empty() && changed {
            ops.push(LedgerOp::Bump { by: String::new(), end: false });
        }
        let decide = move |ledger: &Ledger, _: Moment| {
            let ops = ops.iter().filter(|op| is_needed(ledger, op)).cloned().collect();
            Ok(Decided { ops, answer: () })
        };
        let done = self.ledger(owner.as_str()).change(&self.inner.writer, decide).await;
        if let Err(error) = done {
            let mut owners = self.inner.owed.owners.lock();
            let debt = owners.entry(owner.clone()).or_default();
            debt.settles.extend(settles);
            debt.past.extend(notes);
            debt.changed |= changed;
            return Err(error);
        }
        Ok(())
    }

    /// An owner's limit in bytes.
    pub(crate) fn limit_of(&self, quota: Quota) -> Option<u64> {
        limit(quota, self.inner.options.default_quota)
    }

    pub(crate) fn seen(digests: &[(Digest, u64)], here: bool, seq: u64) -> Vec<Seen> {
        digests.iter().map(|(d, _)| Seen { d: *d, here, seq }).collect()
    }

    /// Does what comes between an intent and its repository; when that fails the intent ends.
    pub(crate) async fn behind<T>(
        &self,
        intended: Intended,
        run: impl Future<Output = Result<T>>,
    ) -> Result<(Intended, T)> {
        match run.await {
            Ok(done) => Ok((intended, done)),
            Err(error) => {
                self.abandon(intended).await;
                Err(error)
            }
        }
    }

    /// Ends an intent whose repository refused, by what the repository says now: an earlier try
    /// may have been carried out without anybody's hearing of it.
    pub(crate) async fn observe(&self, intended: Intended) {
        let Intended { id, repo, changing } = intended;
        let owner = repo.owner();
        let look = {
            let id = id.clone();
            move |ledger: &Ledger| ledger.intents.get(&id).cloned()
        };
        let ledger = self.ledger(owner.as_str());
        let done = match ledger.look(Duration::ZERO, look).await {
            Ok(Some(intent)) => self.finish_intent(&owner, &id, &intent).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::debug!(%error, %repo, "an intent is left for others to finish");
        }
        drop(changing);
    }

    /// Ends an intent whose repository was surely not changed.
    pub(crate) async fn abandon(&self, intended: Intended) {
        self.settle(intended, Vec::new()).await;
    }
}

pub(crate) fn limit(quota: Quota, default: Option<u64>) -> Option<u64> {
    match quota {
        Quota::Default => default,
        Quota::Unlimited => None,
        Quota::Bytes(bytes) => Some(bytes),
    }
}

/// Settling what is settled would only lengthen the head.
fn is_needed(ledger: &Ledger, op: &LedgerOp) -> bool {
    match op {
        LedgerOp::Settle { i, .. } => ledger.intents.contains_key(i),
        _ => true,
    }
}

struct Wanted {
    id: String,
    kind: IntentKind,
    repo: RepoName,
    digests: Vec<(Digest, u64)>,
    upload: Option<UploadId>,
    note: Option<String>,
    settles: Vec<LedgerOp>,
    default_quota: Option<u64>,
}

impl Wanted {
    fn decide(&self, ledger: &Ledger, moment: Moment) -> Result<Decided<LedgerOp, ()>> {
        if ledger.intents.contains_key(&self.id) {
            return Ok(Decided { ops: Vec::new(), answer: () });
        }
        let held = self.upload.as_ref().map_or(0, |upload| ledger.reserved_by(upload));
        if self.kind == IntentKind::Link {
            let new = self.digests.iter().filter(|(digest, _)| !ledger.is_charged(digest));
            let requested: u64 = new.map(|(_, size)| *size).sum();
            let limit = limit(ledger.quota, self.default_quota);
            check_room(ledger, &self.repo.owner(), limit, held, requested)?;
        }
        let mut ops: Vec<LedgerOp> =
            self.settles.iter().filter(|op| is_needed(ledger, op)).cloned().collect();
        let t = moment.now_ms;
        ops.extend(self.note.iter().map(|by| LedgerOp::Open { by: by.clone(), t }));
        if let Some(u) = self.upload.as_ref().filter(|_| held > 0) {
            ops.push(LedgerOp::Reserve { u: u.clone(), n: 0, t });
        }
        let (i, k, r, d) = (self.id.clone(), self.kind, self.repo.clone(), self.digests.clone());
        ops.push(LedgerOp::Intent { i, k, r, d, t });
        Ok(Decided { ops, answer: () })
    }
}

/// Whether `requested` bytes fit beside what is used and what others reserved; `held` of what is
/// reserved is the caller's own.
pub(crate) fn check_room(
    ledger: &Ledger,
    owner: &OwnerName,
    limit: Option<u64>,
    held: u64,
    requested: u64,
) -> Result<()> {
    let Some(limit) = limit.filter(|_| requested > 0) else {
        return Ok(());
    };
    let (used, reserved) = (ledger.used_bytes(), ledger.reserved_bytes().saturating_sub(held));
    if used.saturating_add(reserved).saturating_add(requested) > limit {
        let owner = owner.clone();
        return Err(CatalogError::OverQuota { owner, used, reserved, limit, requested });
    }
    Ok(())
}
