//! The heartbeat of this process: one object that it changes as long as it lives, which carries
//! the claims of all its homes; and the look at the heartbeats of others.
//!
//! What always holds: the object belongs to this incarnation alone, so processes of one node do
//! not meet in it; a renewal counts from its beginning; claims are looked after in a task of
//! their own, so that many homes never delay a renewal.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use yadokari_store::head::{HeadError, HeadVersion, create_head, find_head, swap_head};

use super::claim::Held;
use super::error::ClaimError;
use super::identity::{Incarnation, NodeIdentity, ProcessProbe, SystemProcesses};
use super::judge::{Verdict, judge};
use super::lease::{Lease, LeaseTiming};
use super::monotonic::{BootClock, Monotonic};
use super::record::{Beat, Owner, beat_path, failed, node_path};
use super::watch::{Life, Look, Watch};
use crate::home::{Clock, SystemClock};

/// Writes of one renewal: one that finds the object changed by a write of its own whose answer
/// was lost, and one on top of what it then read.
const WRITES_PER_RENEWAL: u32 = 3;
/// Owner records that are looked at together after a lapse.
const CLAIMS_AT_ONCE: usize = 32;
/// Heartbeats of others that are remembered; beyond it all are watched anew.
const SIGHTINGS_MAX: usize = 4096;
/// A claimer gives a heartbeat so many times the ttl to show itself or to expire, however slow
/// the store is.
const WATCH_TTLS_MAX: u32 = 3;
/// What a node that crashes again and again leaves is removed so many at a time.
const LEFTOVERS_MAX: usize = 100;

/// Seams and times of a heartbeat.
#[derive(Clone, Debug)]
pub struct HeartbeatOptions {
    /// Times of the lease.
    pub timing: LeaseTiming,
    /// By which leases run.
    pub monotonic: Arc<dyn Monotonic>,
    /// For the times that people read.
    pub clock: Arc<dyn Clock>,
    /// Looks at processes of this machine.
    pub processes: Arc<dyn ProcessProbe>,
}

impl Default for HeartbeatOptions {
    fn default() -> Self {
        Self {
            timing: LeaseTiming::default(),
            monotonic: Arc::new(BootClock),
            clock: Arc::new(SystemClock),
            processes: Arc::new(SystemProcesses),
        }
    }
}

/// The heartbeat of this process. It stops when this is dropped, and with it all claims end.
#[derive(Debug)]
pub struct Heartbeat {
    pub(super) inner: Arc<Pulse>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Heartbeat {
    /// Writes the first beat and renews it from then on, on the current runtime.
    ///
    /// # Errors
    /// What the store says.
    pub async fn start(
        meta: Arc<dyn ObjectStore>,
        identity: NodeIdentity,
        options: HeartbeatOptions,
    ) -> Result<Self, HeadError> {
        let inner = Arc::new(Pulse {
            lease: Mutex::new(Lease::new(options.timing)),
            published: Published::default(),
            own: tokio::sync::Mutex::new(OwnObject::default()),
            claims: Mutex::default(),
            sightings: Mutex::default(),
            trouble: Mutex::default(),
            renewed: watch::Sender::new(()),
            standing: watch::Sender::new(()),
            meta,
            identity,
            options,
        });
        inner.renew().await?;
        let tasks = vec![
            tokio::spawn(Arc::clone(&inner).beat()),
            tokio::spawn(Arc::clone(&inner).tend()),
            tokio::spawn(Arc::clone(&inner).sweep()),
        ];
        Ok(Self { inner, tasks: Mutex::new(tasks) })
    }

    /// Who beats.
    #[must_use]
    pub fn identity(&self) -> &NodeIdentity {
        &self.inner.identity
    }

    /// Whether others must take this process for alive.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.inner.validity().1
    }

    /// What keeps this process from renewing, in one line: the first sign of a store that does
    /// not answer.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.inner.trouble.lock();
        let Trouble { since, what, why } = trouble.as_ref()?;
        let seconds = self.inner.now().saturating_sub(*since).as_secs();
        let rest = match self.is_valid() {
            true => "",
            false => "; changes wait until it does, and other nodes may take the homes over",
        };
        Some(format!("the store {what} for {seconds} s: {why}{rest}"))
    }

    /// Ends all claims and removes the object. For after they were released.
    pub async fn stop(&self) {
        self.abort();
        let path = beat_path(&self.inner.identity);
        let deletion = self.inner.meta.delete(&path);
        let deleted = tokio::time::timeout(self.inner.options.timing.interval, deletion).await;
        if !matches!(deleted, Ok(Ok(()))) {
            tracing::debug!(%path, "the heartbeat was left behind");
        }
    }

    fn abort(&self) {
        self.tasks.lock().drain(..).for_each(|task| task.abort());
        self.inner.change_lease(Lease::end);
        self.inner.standing.send_replace(());
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Why renewals fail, and since when by the lease's clock.
#[derive(Debug)]
struct Trouble {
    since: Duration,
    /// The store `fails` or `does not answer`.
    what: &'static str,
    why: String,
}

/// What the tasks and the claims of a heartbeat share.
#[derive(Debug)]
pub(super) struct Pulse {
    pub meta: Arc<dyn ObjectStore>,
    pub identity: NodeIdentity,
    pub options: HeartbeatOptions,
    lease: Mutex<Lease>,
    published: Published,
    /// Changes when claims may be valid again that were not.
    pub standing: watch::Sender<()>,
    renewed: watch::Sender<()>,
    own: tokio::sync::Mutex<OwnObject>,
    claims: Mutex<Vec<Weak<Held>>>,
    sightings: Mutex<HashMap<Incarnation, Watch<HeadVersion>>>,
    trouble: Mutex<Option<Trouble>>,
}

/// What every operation of every home asks of the lease: to be read without a lock. `until` is
/// written after `lapses` and read before it, so that no claim that was confirmed before a lapse
/// meets the time that was won after it.
#[derive(Debug, Default)]
struct Published {
    from: AtomicU64,
    until: AtomicU64,
    lapses: AtomicU64,
}

#[derive(Debug, Default)]
struct OwnObject {
    version: Option<HeadVersion>,
    count: u64,
}

impl Pulse {
    pub fn now(&self) -> Duration {
        self.options.monotonic.now()
    }

    fn change_lease(&self, change: impl FnOnce(&mut Lease)) {
        let mut lease = self.lease.lock();
        change(&mut lease);
        let (from, until) = lease.window();
        let nanoseconds = |at: Duration| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        self.published.lapses.store(lease.lapses(), Ordering::Release);
        self.published.from.store(nanoseconds(from), Ordering::Release);
        self.published.until.store(nanoseconds(until), Ordering::Release);
    }

    /// How often the lease has lapsed, and whether it is valid.
    pub fn validity(&self) -> (u64, bool) {
        let until = Duration::from_nanos(self.published.until.load(Ordering::Acquire));
        let from = Duration::from_nanos(self.published.from.load(Ordering::Acquire));
        let lapses = self.published.lapses.load(Ordering::Acquire);
        (lapses, (from..until).contains(&self.now()))
    }

    /// Has a claim looked after, as long as it exists.
    pub fn register(&self, claim: &Arc<Held>) {
        let mut claims = self.claims.lock();
        claims.retain(|claim| claim.strong_count() > 0);
        claims.push(Arc::downgrade(claim));
    }

    /// One renewal.
    async fn renew(&self) -> Result<(), HeadError> {
        let began = self.now();
        self.write_beat().await?;
        let now = self.now();
        self.change_lease(|lease| lease.renew(began, now));
        self.renewed.send_replace(());
        self.standing.send_replace(());
        Ok(())
    }

    async fn write_beat(&self) -> Result<(), HeadError> {
        let mut own = self.own.lock().await;
        let path = beat_path(&self.identity);
        for left in (0..WRITES_PER_RENEWAL).rev() {
            own.count += 1;
            let data = Beat::new(self.identity.clone(), own.count).encode();
            let written = match &own.version {
                Some(version) => swap_head(&*self.meta, &path, version, &data).await,
                None => create_head(&*self.meta, &path, &data).await,
            };
            match written {
                Ok(version) => {
                    own.version = Some(version);
                    return Ok(());
                }
                // Nobody else writes here: that was a write of ours whose answer was lost.
                Err(HeadError::Conflict(_) | HeadError::Exists(_) | HeadError::NotFound(_))
                    if left > 0 =>
                {
                    own.version = find_head(&*self.meta, &path).await?.map(|head| head.version);
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last write returns")
    }

    /// Renews for ever. A failed renewal is tried again soon: the lease runs on.
    async fn beat(self: Arc<Self>) {
        let timing = self.options.timing;
        let mut pause = timing.interval;
        loop {
            tokio::time::sleep(pause).await;
            let began = self.now();
            let renewal = tokio::time::timeout(timing.interval, self.renew()).await;
            pause = match &renewal {
                Ok(Ok(())) => timing.interval,
                _ => timing.retry_pause(),
            };
            self.note(began, renewal);
        }
    }

    /// Says once when renewals begin to fail, and once when they work again.
    fn note(&self, began: Duration, renewal: Result<Result<(), HeadError>, Elapsed>) {
        let interval = self.options.timing.interval;
        let (what, why) = match renewal {
            Ok(Ok(())) => {
                if let Some(over) = self.trouble.lock().take() {
                    let seconds = self.now().saturating_sub(over.since).as_secs();
                    tracing::info!(seconds, "the heartbeat is renewed again");
                }
                return;
            }
            Ok(Err(error)) => {
                let source = std::error::Error::source(&error);
                let why = source.map_or_else(|| error.to_string(), |s| format!("{error}: {s}"));
                ("fails", why)
            }
            Err(_elapsed) => {
                let seconds = interval.as_secs();
                ("does not answer", format!("the heartbeat was not written within {seconds} s"))
            }
        };
        let mut trouble = self.trouble.lock();
        if trouble.is_none() {
            tracing::warn!(why, "the heartbeat was not renewed; trying again");
        }
        let since = trouble.as_ref().map_or(began, |trouble| trouble.since);
        *trouble = Some(Trouble { since, what, why });
    }

    /// Looks after claims: after a lapse all must be confirmed; now and then each is looked at,
    /// to learn of a takeover that somebody forced.
    async fn tend(self: Arc<Self>) {
        let mut renewed = self.renewed.subscribe();
        let mut looked = self.now();
        let ttl = self.options.timing.ttl;
        while renewed.changed().await.is_ok() {
            let look = self.now().saturating_sub(looked) >= ttl;
            if look {
                looked = self.now();
            }
            let mut claims: Vec<_> = self.claims.lock().iter().filter_map(Weak::upgrade).collect();
            claims.retain(|claim| look || !claim.is_confirmed());
            stream::iter(claims)
                .for_each_concurrent(CLAIMS_AT_ONCE, |claim| async move {
                    // What takes longer is tried again after the next renewal.
                    let _late = tokio::time::timeout(ttl, claim.tend()).await;
                })
                .await;
        }
    }

    /// Waits until `owner` can be taken for dead.
    ///
    /// # Errors
    /// `Owned` when it lives.
    pub async fn await_end(&self, home: &str, owner: &Owner) -> Result<(), ClaimError> {
        let timing = self.options.timing;
        let deadline = self.now() + timing.ttl * WATCH_TTLS_MAX;
        let path = beat_path(&owner.identity);
        loop {
            if self.judge(&owner.identity) != Verdict::Watch {
                return Ok(());
            }
            let began = self.now();
            let found = find_head(&*self.meta, &path).await.map_err(|error| failed(home, error))?;
            let version = found.map(|head| head.version);
            let look = Look { began, ended: self.now(), version };
            match self.sight(owner.identity.incarnation, look) {
                Life::Expired => return Ok(()),
                Life::Unsure if self.now() < deadline => {}
                Life::Alive | Life::Unsure => {
                    let owner = Box::new(owner.clone());
                    return Err(ClaimError::Owned { home: home.to_owned(), owner });
                }
            }
            tokio::time::sleep(timing.poll()).await;
        }
    }

    fn judge(&self, owner: &NodeIdentity) -> Verdict {
        judge(&self.identity, owner, |pid, start| self.options.processes.state(pid, start))
    }

    fn sight(&self, whom: Incarnation, look: Look<HeadVersion>) -> Life {
        let mut sightings = self.sightings.lock();
        if sightings.len() >= SIGHTINGS_MAX && !sightings.contains_key(&whom) {
            sightings.clear();
        }
        sightings.entry(whom).or_default().look(&self.options.timing, look)
    }

    /// Removes the heartbeats of processes of this node that are gone. Nothing depends on it.
    async fn sweep(self: Arc<Self>) {
        let prefix = node_path(&self.identity.node);
        let objects = self.meta.list(Some(&prefix)).take(LEFTOVERS_MAX).try_collect::<Vec<_>>();
        for object in objects.await.unwrap_or_default() {
            let path = object.location;
            let Ok(Some(head)) = find_head(&*self.meta, &path).await else { continue };
            let beat = Beat::decode(&head.data);
            if beat.is_some_and(|beat| self.judge(&beat.identity) == Verdict::Gone) {
                let _left_for_the_next = self.meta.delete(&path).await;
            }
        }
    }
}
