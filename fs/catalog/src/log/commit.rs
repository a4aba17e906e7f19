//! Changing a log: decisions that wait for each other are written in one swap.
//!
//! Whoever comes first writes for all who came meanwhile, in a task of its own, so that a caller
//! that goes away takes nobody's change with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use object_store::{ObjectStoreExt, PutMode, PutPayload};
use tokio::sync::oneshot;
use yadokari_store::head::{self, HEAD_BYTES_MAX, HeadError, create_head, swap_head};

use super::format::{self, Base, Content, First};
use super::slot::{Known, Slot, is_unknown, snapshot_path};
use super::{Committed, Decided, Moment, State};
use crate::error::{CatalogError, Result};
use crate::names::UploadId;
use crate::seam::Seams;

/// Changes that are written together at most.
const BATCH_MAX: usize = 256;
/// Pause after a swap that somebody else won; grows, and is shortened by chance.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A change that waits, whatever its answer is.
pub(super) trait Change<S: State>: std::fmt::Debug + Send {
    /// Decides; keeps the answer. Operations, or None for a refusal.
    fn decide(&mut self, state: &S, moment: Moment) -> Option<Vec<S::Op>>;
    /// The decision holds in the state with this number.
    fn confirm(self: Box<Self>, seq: u64);
    /// Nothing can be said.
    fn fail(self: Box<Self>, error: CatalogError);
}

struct Waiting<F, T> {
    decide: F,
    decided: Option<Result<T>>,
    answer: oneshot::Sender<Result<Committed<T>>>,
}

impl<F, T> std::fmt::Debug for Waiting<F, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a change that waits")
    }
}

impl<S, F, T> Change<S> for Waiting<F, T>
where
    S: State,
    T: Send,
    F: FnMut(&S, Moment) -> Result<Decided<S::Op, T>> + Send,
{
    fn decide(&mut self, state: &S, moment: Moment) -> Option<Vec<S::Op>> {
        match (self.decide)(state, moment) {
            Ok(Decided { ops, answer }) => {
                self.decided = Some(Ok(answer));
                Some(ops)
            }
            Err(error) => {
                self.decided = Some(Err(error));
                None
            }
        }
    }

    fn confirm(self: Box<Self>, seq: u64) {
        let decided = self.decided.expect("what is confirmed was decided");
        // Who asked may have gone away.
        let _gone = self.answer.send(decided.map(|answer| Committed { answer, seq })).is_err();
    }

    fn fail(self: Box<Self>, error: CatalogError) {
        let _gone = self.answer.send(Err(error)).is_err();
    }
}

impl<S: State> Slot<S> {
    /// Changes the log. `decide` may run several times.
    ///
    /// # Errors
    /// What `decide` says, on the newest state; what the store says, and then the change may
    /// have happened.
    pub(crate) async fn change<T, F>(
        self: &Arc<Self>,
        writer: &Writer,
        decide: F,
    ) -> Result<Committed<T>>
    where
        T: Send + 'static,
        F: FnMut(&S, Moment) -> Result<Decided<S::Op, T>> + Send + 'static,
    {
        let (answer, mut answered) = oneshot::channel();
        self.queue.lock().push_back(Box::new(Waiting { decide, decided: None, answer }));
        let (slot, writer) = (Arc::clone(self), writer.clone());
        let run = async move {
            let _one_at_a_time = slot.writing.lock().await;
            slot.write_queue(&writer).await;
        };
        // Somebody who writes already takes this change along when done; then this task finds
        // an empty queue.
        tokio::spawn(run);
        (&mut answered).await.unwrap_or_else(|_| Err(CatalogError::busy("changing", &self.path)))
    }

    async fn write_queue(&self, writer: &Writer) {
        loop {
            let batch: Vec<_> = {
                let mut queue: parking_lot::MutexGuard<'_, VecDeque<_>> = self.queue.lock();
                let take = queue.len().min(BATCH_MAX);
                queue.drain(..take).collect()
            };
            if batch.is_empty() {
                return;
            }
            self.write(writer, batch).await;
        }
    }

    /// Writes a batch, whatever it takes, within the writer's time.
    async fn write(&self, writer: &Writer, mut batch: Vec<Box<dyn Change<S>>>) {
        let start = tokio::time::Instant::now();
        // Ids of swaps that may have happened.
        let mut tried: Vec<Arc<str>> = Vec::new();
        let mut pause = PAUSE_FIRST;
        let mut known = self.known();
        loop {
            let attempt = async {
                // What was known before the batch came may be too old to refuse by.
                let (base, is_new) = match known.take() {
                    Some(known) => (known, false),
                    None => (self.refresh(Duration::ZERO).await?, true),
                };
                if tried.iter().any(|id| base.content.has(id)) {
                    return Ok(Outcome::Done(base.content.first.seq));
                }
                self.attempt(writer, base, is_new, &mut batch, &mut tried).await
            };
            let error = match tokio::time::timeout(writer.request_time, attempt).await {
                Ok(Ok(Outcome::Done(seq))) => {
                    batch.into_iter().for_each(|change| change.confirm(seq));
                    return;
                }
                Ok(Ok(Outcome::Again)) => {
                    known = None;
                    continue;
                }
                Ok(Ok(Outcome::Lost)) => CatalogError::busy("changing", &self.path),
                Ok(Err(error)) => error,
                Err(_elapsed) => CatalogError::busy("changing", &self.path),
            };
            let is_passing = matches!(error, CatalogError::Unavailable { .. });
            if !is_passing || start.elapsed() + pause >= writer.retry_time {
                fail_all(batch, error);
                return;
            }
            tokio::time::sleep(writer.shorten(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
            known = None;
        }
    }

    /// One try: decides on a state that is known and swaps it for the next.
    async fn attempt(
        &self,
        writer: &Writer,
        base: Known<S>,
        is_new: bool,
        batch: &mut [Box<dyn Change<S>>],
        tried: &mut Vec<Arc<str>>,
    ) -> Result<Outcome> {
        let as_of = self.clock.monotonic();
        let seq = base.content.first.seq;
        let moment = Moment { now_ms: self.clock.wall_ms(), seq };
        let (ops, state) = decide_all(&base.state, moment, batch);
        if ops.is_empty() {
            return Ok(if is_new { Outcome::Done(seq) } else { Outcome::Again });
        }
        let id: Arc<str> = writer.id().into();
        let line = format::commit_line(&id, seq + 1, &ops);
        let content = if base.content.is_full(line.text.len()) {
            self.fold(writer, &base, state, &ops, &id).await?
        } else {
            let mut content = base.content.clone();
            content.first.version = format::VERSION;
            content.first.seq = seq + 1;
            content.tail.push(line);
            content
        };
        tried.push(id);
        let data = content.encode();
        if data.len() > HEAD_BYTES_MAX {
            return Err(CatalogError::Limit {
                what: "bytes of a head",
                limit: HEAD_BYTES_MAX as u64,
            });
        }
        let swapped = match &base.version {
            None => create_head(&self.meta, &self.path, &data).await,
            Some(version) => swap_head(&self.meta, &self.path, version, &data).await,
        };
        match swapped {
            Ok(version) => {
                let old = base.content.first.base.clone();
                let folded = old.filter(|old| Some(old) != content.first.base.as_ref());
                drop(base);
                self.advance(&ops, version, content, as_of);
                if let Some(old) = folded {
                    self.drop_snapshot(&old.name).await;
                }
                Ok(Outcome::Done(seq + 1))
            }
            Err(HeadError::Conflict(_) | HeadError::Exists(_) | HeadError::NotFound(_)) => {
                Ok(Outcome::Lost)
            }
            Err(error) => {
                if !is_unknown(&error) {
                    tried.pop();
                }
                Err(CatalogError::head("changing", error))
            }
        }
    }

    /// The content of a head behind whose commits a snapshot begins that has these operations.
    async fn fold(
        &self,
        writer: &Writer,
        base: &Known<S>,
        decided: Option<S>,
        ops: &[S::Op],
        id: &Arc<str>,
    ) -> Result<Content> {
        let state = decided.unwrap_or_else(|| {
            let mut state = S::clone(&base.state);
            ops.iter().for_each(|op| state.apply(op));
            state
        });
        let seq = base.content.first.seq + 1;
        let mut recent = base.content.recent_after();
        recent.push(id.to_string());
        let mut first = First { version: format::VERSION, seq, base: None, recent };
        let snapshot = format::encode_snapshot(&state, self.path.as_ref(), seq);
        if snapshot.len() <= format::INLINE_STATE_BYTES {
            let line = format::commit_line(&writer.id(), seq, &state.snapshot());
            return Ok(Content { first, tail: vec![line] });
        }
        let name = writer.id();
        let path = snapshot_path(&name);
        let bytes = snapshot.len() as u64;
        let payload = PutPayload::from(head::seal(&snapshot));
        let put = self.meta.put_opts(&path, payload, PutMode::Overwrite.into()).await;
        put.map_err(|e| CatalogError::store("writing", &path, e))?;
        first.base = Some(Base { name, seq, bytes });
        Ok(Content { first, tail: Vec::new() })
    }

    /// The head names it no more. A reader that was about to read it reads the head again.
    async fn drop_snapshot(&self, name: &str) {
        let path = snapshot_path(name);
        if let Err(error) = self.meta.delete(&path).await {
            tracing::debug!(%path, %error, "an old snapshot stays until it is swept");
        }
    }
}

enum Outcome {
    /// All decisions hold in this state.
    Done(u64),
    /// Decide again on a newer state.
    Again,
    /// Somebody else was quicker.
    Lost,
}

/// Decides one after the other, each on what the ones before it make of the state. Gives the
/// state after all of them if it had to be made.
fn decide_all<S: State>(
    state: &Arc<S>,
    moment: Moment,
    batch: &mut [Box<dyn Change<S>>],
) -> (Vec<S::Op>, Option<S>) {
    let mut after: Option<S> = None;
    let mut all: Vec<S::Op> = Vec::new();
    let mut applied = 0;
    for change in batch {
        if all.len() > applied {
            let after = after.get_or_insert_with(|| S::clone(state));
            all[applied..].iter().for_each(|op| after.apply(op));
            applied = all.len();
        }
        let seen = after.as_ref().unwrap_or(state);
        all.extend(change.decide(seen, moment).unwrap_or_default());
    }
    if let Some(after) = &mut after {
        all[applied..].iter().for_each(|op| after.apply(op));
    }
    (all, after)
}

fn fail_all<S: State>(batch: Vec<Box<dyn Change<S>>>, error: CatalogError) {
    let again = |error: &CatalogError| match error {
        CatalogError::NoSpace { object } => CatalogError::NoSpace { object: object.clone() },
        CatalogError::Corrupt { object, why } => CatalogError::corrupt(object, why),
        CatalogError::Limit { what, limit } => CatalogError::Limit { what, limit: *limit },
        other => CatalogError::Unavailable {
            operation: "changing",
            object: other.to_string(),
            source: None,
        },
    };
    for change in batch {
        change.fail(again(&error));
    }
    tracing::debug!(%error, "a change of the catalogue failed");
}

/// How changes are written: ids, times.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    pub(crate) seams: Seams,
    pub(crate) retry_time: Duration,
    pub(crate) request_time: Duration,
}

impl Writer {
    pub(crate) fn id(&self) -> String {
        UploadId::from_bytes(self.seams.random.bytes16()).as_str().to_owned()
    }

    /// Between half of a pause and all of it.
    pub(crate) fn shorten(&self, pause: Duration) -> Duration {
        let chance = u32::from(self.seams.random.bytes16()[0]);
        pause / 2 + pause * chance / 512
    }
}

impl<S: State> Slot<S> {
    pub(super) fn touch(&self) {
        let now = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        self.used_ms.store(now, Ordering::Relaxed);
    }
}

impl Writer {
    /// Does something again while the store gives no answer, within the writer's time. Only for
    /// what does no harm when it happens twice.
    pub(crate) async fn again<T, F: Future<Output = Result<T>>>(
        &self,
        mut run: impl FnMut() -> F,
    ) -> Result<T> {
        let start = tokio::time::Instant::now();
        let mut pause = PAUSE_FIRST;
        loop {
            let done = match tokio::time::timeout(self.request_time, run()).await {
                Ok(done) => done,
                Err(_elapsed) => Err(CatalogError::busy("asking", "the store")),
            };
            match done {
                Err(CatalogError::Unavailable { .. })
                    if start.elapsed() + pause < self.retry_time => {}
                other => return other,
            }
            tokio::time::sleep(self.shorten(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}
