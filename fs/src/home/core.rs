//! The heart of an open home: its state, its tables, its store, and the driver that commits.
//!
//! One driver task per home commits, starts flushes and frees; an idle home's driver sleeps
//! without a timer. Operations wake it when there is something new to do, and wait on
//! [`Core::durable`] for what they need.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;

use super::Shared;
use super::capture::{Capture, SMALL_HOME_BYTES_MAX};
use super::clean::Graves;
use super::commit::Ledger;
use super::dirty::HomeBudget;
use super::error::{Error, ErrorKind, Result};
use super::holds::Holds;
use super::mutants::{self, Mutant};
use super::reader::{JoinPath, Reader};
use super::snapshot::Snapshots;
use super::state::{State, Step, Stop};
use super::sweep::Candidates;
use super::table::Table;
use super::tenure::Tenure;
use super::trouble::Troubles;
use super::types::{Change, ClientId, Ino, Time};

/// A file with this much uncaptured data is captured at once.
pub const FILE_FRESH_BYTES: u64 = 8 << 20;
/// Captures of one file that are in flight at the same time.
pub const FILE_CAPTURES_MAX: usize = 3;
/// A transaction of this many records is committed at once.
const TXN_RECORDS_MAX: usize = 4096;
/// Operations wait where the running transaction has more records than this, because the one
/// before is not written.
const BEHIND_RECORDS_MAX: usize = 2 * TXN_RECORDS_MAX;
/// Files whose data is on its way to the store, and chunks that wait for the commit behind it, at
/// the same time, unless somebody waits for them.
const FLYING_MAX: usize = 4096;
/// And where so many more inodes are in memory than may be kept, and a quarter as many again.
const BEHIND_MIN: usize = 4_000;
/// An operation is started again at most this often for what is not in memory.
const TRIES_MAX: usize = 100_000;

/// How far the home is durable.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// Transactions up to this one survive anything.
    pub txn: u64,
    /// Nothing more will be durable.
    pub failed: Option<Error>,
}

/// An open home.
pub struct Core {
    pub(super) me: Weak<Core>,
    pub(super) name: String,
    pub(super) shared: Arc<Shared>,
    pub(super) tenure: Arc<dyn Tenure>,
    pub(super) runtime: Handle,
    pub(super) state: Mutex<State>,
    pub(super) table: Table,
    pub(super) data: Arc<dyn ObjectStore>,
    pub(super) prefix: Path,
    pub(super) reader: Reader,
    pub(super) holds: Arc<Holds>,
    pub(super) budget: Arc<HomeBudget>,
    pub(super) reading: Arc<HomeBudget>,
    pub(super) segments: AtomicU64,
    /// The first inode number that the tables reserve for nobody: as written, as durable.
    pub(super) free_ino: [AtomicU64; 2],
    pub(super) wake: Notify,
    pub(super) gate: Notify,
    pub(super) durable: watch::Sender<Durable>,
    pub(super) wanted: AtomicU64,
    pub(super) changes: broadcast::Sender<(ClientId, Change)>,
    /// Somebody set attributes of the root directory, which the head shows too.
    pub(super) root_set: Notify,
    pub(super) troubles: Arc<Troubles>,
    pub(super) graves: Graves,
    pub(super) candidates: Candidates,
    pub(super) snapshots: Snapshots,
    pub(super) tidying: AtomicBool,
    pub(super) armed: AtomicBool,
    pub(super) pressed: AtomicBool,
    /// Operations wait until less is not in the store yet.
    pub(super) behind: AtomicBool,
    pub(super) closing: AtomicBool,
    pub(super) closed: AtomicBool,
    pub(super) reaping: AtomicBool,
    /// A commit waits for data that a rename carries.
    pub(super) carrying: AtomicBool,
    pub(super) ended: watch::Sender<bool>,
    pub(super) searched: watch::Sender<bool>,
}

impl Core {
    /// This, counted.
    pub fn arc(&self) -> Arc<Core> {
        self.me.upgrade().expect("whoever calls holds it")
    }

    /// The full name of one of the home's objects.
    pub fn path(&self, name: &str) -> Path {
        self.prefix.clone().join_path(name)
    }

    /// Now, for inodes.
    pub fn now(&self) -> Time {
        self.shared.clock.now()
    }

    /// Waits for the store, but not longer than the configured time.
    pub async fn patient<T>(&self, wait: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.shared.config.store_timeout;
        match tokio::time::timeout(limit, wait).await {
            Ok(result) => result,
            Err(_elapsed) => {
                self.log_standing();
                Err(Error::unavailable(format_args!(
                    "home {}: no answer from the store in {} s{}",
                    self.name,
                    limit.as_secs(),
                    self.troubles.last().map(|t| format!(" ({t})")).unwrap_or_default()
                )))
            }
        }
    }

    /// Says how far the home's transactions are: what was waited for in vain.
    fn log_standing(&self) {
        let state = self.state.lock();
        tracing::warn!(
            home = %self.name,
            owned = self.tenure.is_valid(),
            running = state.txn.number,
            written = state.written,
            durable = self.durable.borrow().txn,
            wanted = self.wanted.load(Ordering::Relaxed),
            captures = state.flying.load(Ordering::Relaxed),
            carrying = self.carrying.load(Ordering::Relaxed),
            gate_closed = state.gate_closed,
            "waited in vain"
        );
    }

    /// Waits until this process may answer from the store and acknowledge changes.
    ///
    /// # Errors
    /// `Fenced` where it never will, `Unavailable` where it does not in time.
    pub async fn admitted(&self) -> Result<()> {
        if self.tenure.is_valid() { Ok(()) } else { self.patient(self.tenure.admit()).await }
    }

    /// Runs an operation over the state, loading what it needs. What changes something names its
    /// client and waits for the right to; what only looks is answered from memory while the
    /// store cannot be reached, as the kernel answers from its own.
    pub async fn run<T>(
        &self,
        client: Option<ClientId>,
        mut op: impl FnMut(&mut State) -> Step<T>,
    ) -> Result<T> {
        if client.is_some() || self.tenure.is_lost() {
            self.admitted().await?;
        }
        let mut gone = None;
        for _ in 0..TRIES_MAX {
            let stop = {
                let mut state = self.state.lock();
                if let Some(Error(ErrorKind::Fenced)) = state.failed {
                    return Err(ErrorKind::Fenced.into());
                }
                let behind = client.is_some() && self.is_behind(&mut state);
                match if behind { Err(Stop::Behind) } else { op(&mut state) } {
                    Ok(value) => {
                        self.after(&mut state, client);
                        return Ok(value);
                    }
                    Err(stop) => stop,
                }
            };
            if !matches!(stop, Stop::Fail(_)) {
                self.admitted().await?;
            }
            match stop {
                Stop::Fail(error) => return Err(error),
                Stop::Need(need) => match self.patient(self.load(&need)).await {
                    // What named it may be gone as well by now: once more.
                    Err(Error(ErrorKind::Stale)) if gone.as_ref() != Some(&need) => {
                        gone = Some(need);
                    }
                    loaded => loaded.map_err(|e| e.in_place(&self.name, "its tables"))?,
                },
                Stop::Gate => self.patient(self.pass_gate()).await?,
                Stop::Behind => self.patient(self.catch_up()).await?,
            }
        }
        Err(Error::unavailable(format_args!("home {}: memory is too small", self.name)))
    }

    async fn pass_gate(&self) -> Result<()> {
        let open = self.gate.notified();
        if self.state.lock().gate_closed {
            open.await;
        }
        Ok(())
    }

    /// Makes room where more is in memory than belongs there.
    pub fn evict_if_crowded(&self, state: &mut State) {
        let keep = self.shared.inodes_per_home();
        if state.has_too_many_inodes(keep) || state.has_too_many_names(keep) {
            self.evict(state);
        }
    }

    fn evict(&self, state: &mut State) {
        state.parked.resize(self.shared.parked_per_home());
        state.evict(self.shared.inodes_per_home());
    }

    /// Whether operations make changes faster than the store takes them: what is not in the
    /// store yet cannot leave memory.
    fn is_behind(&self, state: &mut State) -> bool {
        let keep = self.shared.inodes_per_home();
        let inodes_most = keep + keep / 4 + BEHIND_MIN;
        if state.movable() > inodes_most && state.is_pending() {
            self.evict_if_crowded(state);
        }
        // Where nothing is on its way to the store, waiting would not end.
        (state.movable() > inodes_most && state.is_pending())
            || state.txn.len() > BEHIND_RECORDS_MAX
    }

    async fn catch_up(&self) -> Result<()> {
        let caught = self.gate.notified();
        if self.is_behind(&mut self.state.lock()) {
            self.behind.store(true, Ordering::Release);
            self.wake.notify_one();
            self.unless_failed(caught).await?;
        }
        Ok(())
    }

    /// What follows every finished operation, under its lock.
    fn after(&self, state: &mut State, client: Option<ClientId>) {
        for change in state.changes.drain(..) {
            let from = client.unwrap_or(ClientId(0));
            let _nobody_listens = self.changes.send((from, change));
        }
        self.evict_if_crowded(state);
        let busy = state.txn.is_started() || !state.fresh.is_empty();
        if busy && client.is_some() {
            self.snapshots.note_change(state.txn.number);
        }
        let first = busy && !self.armed.swap(true, Ordering::Relaxed);
        if first || state.txn.len() >= TXN_RECORDS_MAX {
            self.wake.notify_one();
        }
    }

    /// Memory is getting tight: the driver should write now.
    pub fn press(&self) {
        if !self.pressed.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Captures a file that has collected enough, and starts writing it.
    pub fn flush_if_large(&self, ino: Ino) {
        let capture = {
            let mut state = self.state.lock();
            let large = state.inodes.get(&ino).and_then(|i| i.file.as_ref()).is_some_and(|f| {
                f.fresh_bytes >= FILE_FRESH_BYTES && f.captures.len() < FILE_CAPTURES_MAX
            });
            large.then(|| state.capture(ino, true)).flatten()
        };
        self.start_flush(capture.into_iter().collect());
    }

    /// Waits until transactions up to `number` are durable.
    ///
    /// # Errors
    /// Why they will not be, or not in time.
    pub async fn wait_durable(&self, number: u64) -> Result<()> {
        let mut durable = self.durable.subscribe();
        if durable.borrow().txn >= number {
            return Ok(());
        }
        self.wanted.fetch_max(number, Ordering::Relaxed);
        self.wake.notify_one();
        let reach = async {
            let reached = durable
                .wait_for(|d| d.txn >= number || d.failed.is_some())
                .await
                .map_err(|_| Error::from(ErrorKind::Closed))?;
            match &reached.failed {
                Some(error) if reached.txn < number => Err(error.clone()),
                _ => Ok(()),
            }
        };
        self.patient(async {
            tokio::select! {
                biased;
                reached = reach => reached,
                () = self.troubles.wait_log_full() => Err(ErrorKind::NoSpace.into()),
            }
        })
        .await
    }

    /// Makes one inode's data and names durable.
    ///
    /// # Errors
    /// Why that cannot be.
    pub async fn fsync(&self, ino: Ino) -> Result<()> {
        if let Some(capture) = self.capture_for_sync(ino) {
            let stored = self.unless_failed(capture.wait_done());
            self.patient(self.unless_full(stored)).await?;
        }
        let changed = {
            let mut state = self.state.lock();
            if let Some(error) = state.failed.clone() {
                return Err(error);
            }
            match state.inode(ino) {
                Ok(inode) => inode.changed,
                // Not in memory: nothing of it waits.
                Err(_) => return Ok(()),
            }
        };
        if mutants::is(Mutant::FsyncSkipsNames) {
            return Ok(());
        }
        self.wait_durable(changed).await
    }

    /// Waits, unless the store is full: then there is no telling how long.
    pub async fn unless_full<T>(&self, wait: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            done = wait => done,
            () = self.troubles.wait_full() => Err(ErrorKind::NoSpace.into()),
        }
    }

    /// Fails while the store is full: what takes space is refused, so that there is room for
    /// what gives some back.
    pub fn check_room(&self) -> Result<()> {
        if self.troubles.is_full() { Err(ErrorKind::NoSpace.into()) } else { Ok(()) }
    }

    /// Waits, unless nothing will be durable any more.
    pub async fn unless_failed(&self, wait: impl Future<Output = ()>) -> Result<()> {
        let mut durable = self.durable.subscribe();
        tokio::select! {
            () = wait => Ok(()),
            failed = durable.wait_for(|d| d.failed.is_some()) => {
                let error = failed.ok().and_then(|d| d.failed.clone());
                Err(error.unwrap_or_else(|| ErrorKind::Closed.into()))
            }
        }
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// Why that cannot be.
    pub async fn sync(&self) -> Result<()> {
        let captures: Vec<Arc<Capture>> = {
            let mut state = self.state.lock();
            let fresh: Vec<Ino> = state.fresh.keys().copied().collect();
            let started: Vec<_> =
                fresh.into_iter().filter_map(|ino| state.capture(ino, false)).collect();
            let running = state.inodes.values().filter_map(|i| i.file.as_ref());
            let all = running.flat_map(|f| f.captures.iter().cloned()).collect();
            drop(state);
            self.start_flush(started);
            all
        };
        self.patient(async {
            for capture in captures {
                self.unless_failed(capture.wait_done()).await?;
            }
            Ok(())
        })
        .await?;
        let (number, started) = {
            let state = self.state.lock();
            (state.txn.number, state.txn.is_started())
        };
        self.wait_durable(if started { number } else { number - 1 }).await
    }

    /// Commits, flushes and frees until the home closes.
    pub async fn drive(self: Arc<Self>) {
        let mut ledger = Ledger::default();
        let mut last_reaping = false;
        loop {
            let closing = self.closing.load(Ordering::Acquire);
            let plan = self.plan(&ledger);
            self.start_flush(plan.captures);
            let mut idle = true;
            if plan.commit {
                idle = false;
                if let Err(error) = self.commit_durably(&mut ledger).await {
                    self.fail(&error);
                }
            }
            if let Err(error) = self.take_snapshot(&mut ledger).await {
                self.fail(&error);
            }
            // At the end once more: what fails then is freed at the next opening.
            if !std::mem::replace(&mut last_reaping, closing) {
                self.start_reaping();
            }
            self.start_tidying();
            self.graves.visit(&self);
            self.evict(&mut self.state.lock());
            if self.behind.swap(false, Ordering::AcqRel) {
                self.gate.notify_waiters();
            }
            if self.state.lock().failed.is_some() {
                break;
            }
            let upkeeping = self.is_upkeeping();
            if closing && idle && !upkeeping {
                break;
            }
            if closing && idle {
                self.wake.notified().await;
            } else if idle {
                let sleep = plan.wait.unwrap_or(Duration::from_secs(3600));
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(sleep) => {}
                }
            }
        }
        self.snapshots.give_up();
        let _nobody_waits = self.ended.send_replace(true);
    }

    /// Commits what runs and makes it durable.
    pub async fn commit_durably(&self, ledger: &mut Ledger) -> Result<()> {
        let committed = self.commit(ledger).await?;
        self.graves.extend(std::mem::take(&mut ledger.empty));
        let number = match committed {
            Some(number) => number,
            None => self.state.lock().txn.number - 1,
        };
        if self.durable.borrow().txn < number {
            if !mutants::is(Mutant::SkipTableSync) {
                self.table.flush().await?;
            }
            self.free_ino[1].store(self.free_ino[0].load(Ordering::Acquire), Ordering::Release);
            self.tenure.admit().await?;
            self.durable.send_modify(|durable| durable.txn = number);
        }
        Ok(())
    }

    fn plan(&self, ledger: &Ledger) -> Plan {
        let config = &self.shared.config;
        let now = Instant::now();
        let closing = self.closing.load(Ordering::Acquire);
        let mut state = self.state.lock();
        self.pressed.store(false, Ordering::Relaxed);
        let tight = self.budget.is_tight() || self.behind.load(Ordering::Acquire);
        let due: Vec<Ino> = state
            .fresh
            .iter()
            .filter(|(_, since)| {
                tight || closing || now.saturating_duration_since(**since) >= config.flush_interval
            })
            .map(|(ino, _)| *ino)
            .collect();
        let writing = |ino: &Ino| {
            let file = state.inodes.get(ino).and_then(|i| i.file.as_ref());
            file.is_some_and(|f| f.captures.len() < FILE_CAPTURES_MAX)
        };
        let room = match closing {
            true => usize::MAX,
            false => {
                let flying = state.flying.load(Ordering::Relaxed) + state.txn.births.len();
                FLYING_MAX.saturating_sub(flying)
            }
        };
        let mut due: Vec<Ino> = due.into_iter().filter(writing).collect();
        // Those that find no room are looked for again when some is given back.
        let crowded = due.len() > room;
        due.truncate(room);
        let captures = due.into_iter().filter_map(|ino| state.capture(ino, tight)).collect();
        let since = state.txn.since;
        let age = since.map(|since| now.saturating_duration_since(since));
        let wanted = self.wanted.load(Ordering::Relaxed);
        let commit = wanted > self.durable.borrow().txn
            && (since.is_some() || wanted < state.txn.number)
            || age.is_some_and(|age| age >= config.commit_interval)
            || state.txn.len() >= TXN_RECORDS_MAX
            || (closing && since.is_some());
        let until = |interval: Duration, age: Duration| interval.saturating_sub(age);
        let waits = [
            age.map(|age| until(config.commit_interval, age)),
            state.fresh_age(now).filter(|_| !crowded).map(|age| until(config.flush_interval, age)),
            self.graves.next_visit(),
            self.candidates.next_visit(),
            state.untidy.next_visit(now),
            ledger.has_watched().then_some(config.commit_interval),
        ];
        // While armed, operations do not wake the driver: it looks again soon enough.
        let busy = since.is_some() || !state.fresh.is_empty();
        let at_most = busy.then_some(config.commit_interval);
        let wait = waits.into_iter().flatten().chain(at_most).min();
        let wait = wait.map(|wait| wait.max(Duration::from_millis(1)));
        self.armed.store(busy, Ordering::Relaxed);
        Plan { captures, commit, wait }
    }

    /// Tidies files and cleans segments, where there is reason.
    fn start_tidying(&self) {
        let due = {
            let state = self.state.lock();
            let now = Instant::now();
            // Half full: the small values must go now.
            let hurry = state.small_bytes > SMALL_HOME_BYTES_MAX / 2;
            let untidy = state.untidy.next_visit(now).is_some_and(|wait| hurry || wait.is_zero());
            let sweep = self.candidates.next_visit().is_some_and(|wait| wait.is_zero());
            (untidy || sweep).then_some(hurry)
        };
        let closing = self.closing.load(Ordering::Acquire);
        let Some(hurry) = due.filter(|_| !closing) else { return };
        if self.tidying.swap(true, Ordering::AcqRel) {
            return;
        }
        let core = self.arc();
        self.runtime.spawn(async move {
            let tidied = core.tidy(hurry).await;
            let swept = core.sweep(false).await;
            if let Err(error) = tidied.and(swept) {
                tracing::warn!(home = %core.name, %error, "tidying waits");
            }
            core.tidying.store(false, Ordering::Release);
            core.wake.notify_one();
        });
    }

    /// Whether the home changes something by itself, which is to be committed.
    fn is_upkeeping(&self) -> bool {
        self.tidying.load(Ordering::Acquire) || self.reaping.load(Ordering::Acquire)
    }

    fn start_reaping(&self) {
        if self.state.lock().reap.is_empty() || self.reaping.swap(true, Ordering::AcqRel) {
            return;
        }
        let core = self.arc();
        self.runtime.spawn(async move {
            if let Err(error) = core.reap().await {
                tracing::warn!(home = %core.name, %error, "freeing removed files waits");
            }
            core.reaping.store(false, Ordering::Release);
            if core.closing.load(Ordering::Acquire) {
                core.wake.notify_one();
            }
        });
    }
}

/// What the driver does next.
struct Plan {
    captures: Vec<Arc<Capture>>,
    commit: bool,
    wait: Option<Duration>,
}
