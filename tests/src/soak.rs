//! Work for soak tests: programs that go on whatever becomes of the mount below them, and what
//! was promised to them, kept outside of it.
//!
//! A worker that meets an error looks whether the daemon was killed meanwhile. If so it opens its
//! files again, looks whether they hold what was promised, and goes on; if not, the error is a
//! finding.

mod files;
mod programs;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::user::User;

pub use files::{Appender, Maker, Replacer};
pub use programs::{Git, Rsync, Sqlite};

/// What is not synced may be lost when it is younger than this, with a second to spare for what
/// tells of it.
pub const LOST_MAX: Duration = Duration::from_secs(6);

/// One kind of work in a directory of its own.
pub trait Work: Send + Sync + 'static {
    /// What it is called in findings.
    fn name(&self) -> String;

    /// Looks at what is there, which must hold what was promised, and works until it is told to
    /// stop or something fails.
    ///
    /// # Errors
    /// Whatever the mount says, and [`Broken`] for a promise that was not kept.
    fn work(&self, place: &Place) -> Result<()>;

    /// Looks once more, when all is over.
    ///
    /// # Errors
    /// What is missing or wrong.
    fn check(&self, place: &Place) -> Result<()>;

    /// How much was promised, so that a test can tell that the work did something.
    fn promised(&self) -> u64;
}

/// A promise that was not kept, at any time.
#[derive(Debug, thiserror::Error)]
#[error("a promise was broken: {0}")]
pub struct Broken(pub String);

/// Fails with [`Broken`] unless a condition holds.
#[macro_export]
macro_rules! kept {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err($crate::soak::Broken(format!($($what)+)).into());
        }
    };
}

/// What workers know of the daemon.
#[derive(Debug, Default)]
struct Daemon {
    kills: Mutex<Vec<Instant>>,
    store_away: Mutex<Vec<Range<Instant>>>,
    killed: AtomicU64,
    down: AtomicBool,
    over: AtomicBool,
}

/// Where a worker works.
#[derive(Clone)]
pub struct Place {
    /// Whose it is.
    pub user: Arc<User>,
    /// A directory in the user's home.
    pub dir: PathBuf,
    /// A directory on the local disk, outside of what is tested.
    pub beside: PathBuf,
    daemon: Arc<Daemon>,
}

impl Place {
    /// Whether the work is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.daemon.over.load(Ordering::Relaxed)
    }

    /// Whether what was done at `time` without a sync can have been lost by a kill.
    #[must_use]
    pub fn can_be_lost(&self, time: Instant) -> bool {
        let kills = lock(&self.daemon.kills);
        let away = lock(&self.daemon.store_away);
        // Nothing becomes durable while the store is away.
        let waited = |until: Instant| -> Duration {
            let part = |gap: &Range<Instant>| {
                gap.end.min(until).saturating_duration_since(gap.start.max(time))
            };
            away.iter().map(part).sum()
        };
        kills.iter().any(|kill| *kill >= time && *kill - time < LOST_MAX + waited(*kill))
    }
}

/// Workers at work.
pub struct Soak {
    daemon: Arc<Daemon>,
    findings: Arc<Mutex<Vec<String>>>,
    workers: Vec<(Arc<dyn Work>, Place, JoinHandle<()>)>,
}

impl Soak {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self { daemon: Arc::default(), findings: Arc::default(), workers: Vec::new() }
    }

    /// Starts a worker for a user; `beside` is a directory on the local disk.
    ///
    /// # Errors
    /// Where its directories cannot be made.
    pub fn start(&mut self, work: impl Work, user: &Arc<User>, beside: &Path) -> Result<()> {
        let work: Arc<dyn Work> = Arc::new(work);
        let name = work.name();
        let (dir, beside) = (user.home.join(&name), beside.join(format!("{}-{name}", user.name)));
        for dir in [&dir, &beside] {
            std::fs::create_dir(dir)?;
            std::os::unix::fs::chown(dir, Some(user.uid), Some(user.gid))?;
        }
        std::fs::File::open(&dir)?.sync_all()?;
        let place = Place { user: Arc::clone(user), dir, beside, daemon: Arc::clone(&self.daemon) };
        let (worker, findings) = (Arc::clone(&work), Arc::clone(&self.findings));
        let at = place.clone();
        let thread = std::thread::spawn(move || drive(&*worker, &at, &findings));
        self.workers.push((work, place, thread));
        Ok(())
    }

    /// Does something that takes the daemon away and brings it back.
    ///
    /// # Errors
    /// Those of `restart`.
    pub fn interrupt(&self, restart: impl FnOnce() -> Result<()>) -> Result<()> {
        self.daemon.down.store(true, Ordering::SeqCst);
        self.daemon.killed.fetch_add(1, Ordering::SeqCst);
        lock(&self.daemon.kills).push(Instant::now());
        let done = restart();
        self.daemon.down.store(false, Ordering::SeqCst);
        done
    }

    /// Notes that the store did not answer.
    pub fn store_was_away(&self, time: Range<Instant>) {
        lock(&self.daemon.store_away).push(time);
    }

    /// Fails as soon as any worker found something.
    ///
    /// # Errors
    /// What was found.
    pub fn is_well(&self) -> Result<()> {
        let findings = lock(&self.findings);
        ensure!(findings.is_empty(), "found:\n{}", findings.join("\n"));
        Ok(())
    }

    /// Ends all workers; gives them for [`Soak::check`].
    ///
    /// # Errors
    /// What was found.
    pub fn end(&mut self) -> Result<()> {
        self.daemon.over.store(true, Ordering::SeqCst);
        let mut ended = Vec::new();
        for (work, place, thread) in self.workers.drain(..) {
            let _ = thread.join();
            ended.push((work, place, std::thread::spawn(|| ())));
        }
        self.workers = ended;
        self.is_well()
    }

    /// Everything that was promised must be there.
    ///
    /// # Errors
    /// What is not.
    pub fn check(&self) -> Result<()> {
        for (work, place, _) in &self.workers {
            let name = format!("{} of {}", work.name(), place.user.name);
            work.check(place).with_context(|| name.clone())?;
            eprintln!("{name}: {} promises kept", work.promised());
            ensure!(work.promised() > 0, "{name} did nothing");
        }
        Ok(())
    }
}

impl Default for Soak {
    fn default() -> Self {
        Self::new()
    }
}

/// Works until all is over, again after every kill.
fn drive(work: &dyn Work, place: &Place, findings: &Mutex<Vec<String>>) {
    while !place.is_over() {
        if place.daemon.down.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        let before = place.daemon.killed.load(Ordering::SeqCst);
        let Err(error) = work.work(place) else { continue };
        // While the daemon was away nothing was there; the next look tells what is.
        if place.daemon.killed.load(Ordering::SeqCst) == before {
            let user = &place.user.name;
            lock(findings).push(format!("{} of {user}: {error:#}", work.name()));
            return;
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// A process that prints a line for everything that it was promised, with when it said so.
fn follow(
    mut command: std::process::Command,
    place: &Place,
    mut said: impl FnMut(&str, Instant) -> Result<()>,
) -> Result<()> {
    use std::io::{BufRead, BufReader};
    let errors = place.beside.join("errors");
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::fs::File::create(&errors)?)
        .spawn()?;
    let mut result = Ok(());
    for line in BufReader::new(child.stdout.take().context("piped")?).lines() {
        let heard = Instant::now();
        result = line.map_err(Into::into).and_then(|line| said(&line, heard));
        if result.is_err() || place.is_over() {
            break;
        }
    }
    // The programs end when nobody listens any more, or at the end of their input.
    drop(child.stdin.take());
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            break child.wait()?;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    result?;
    if !status.success() && !place.is_over() {
        bail!("{command:?} ended with {status}: {}", std::fs::read_to_string(&errors)?);
    }
    Ok(())
}
