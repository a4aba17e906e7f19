//! What runs while something is broken: a log that notes what was acknowledged, and looks that
//! must never take long.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::wait;

/// Every line of a log is this long.
const LINE_BYTES: u64 = 16;
/// Between two lines, and between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// An operation that waits ends after the store's time-out at the latest; on a busy machine.
const END_MAX: Duration = Duration::from_secs(150);

/// A program that appends lines to a file, syncs each, and ends at the first error.
pub struct Log {
    path: PathBuf,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Option<i32>>,
}

impl Log {
    /// Starts it on a new file.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn start(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create_new(true).append(true).open(path)?;
        let (acknowledged, stop) = (Arc::default(), Arc::default());
        let (count, told) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        let thread = std::thread::spawn(move || append(file, &count, &told));
        Ok(Self { path: path.to_owned(), acknowledged, stop, thread })
    }

    /// Lines whose sync has returned.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Waits until so many more lines are acknowledged.
    ///
    /// # Errors
    /// When `limit` passes before.
    pub fn wait_for_more(&self, lines: u64, limit: Duration) -> Result<()> {
        let before = self.acknowledged();
        wait::until("more lines of a log", limit, || {
            (self.acknowledged() >= before + lines).then_some(())
        })
    }

    /// Whether it met an error.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it; gives the lines that were acknowledged, and the error that ended it before.
    ///
    /// # Errors
    /// When it hangs.
    pub fn end(self) -> Result<(u64, Option<i32>)> {
        self.stop.store(true, Ordering::Relaxed);
        wait::until("the end of a log", END_MAX, || self.thread.is_finished().then_some(()))?;
        let error = self.thread.join().map_err(|_| anyhow::anyhow!("the log's thread panicked"))?;
        Ok((self.acknowledged.load(Ordering::Acquire), error))
    }

    /// Waits until it meets an error; gives the lines that were acknowledged, and the error.
    ///
    /// # Errors
    /// When it meets none.
    pub fn end_by_error(self) -> Result<(u64, Option<i32>)> {
        wait::until("the error of a log", END_MAX, || self.thread.is_finished().then_some(()))?;
        self.end()
    }

    /// Where it writes.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn append(mut file: File, acknowledged: &AtomicU64, stop: &AtomicBool) -> Option<i32> {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let done = file.write_all(&line(number)).and_then(|()| file.sync_data());
        if let Err(error) = done {
            return Some(error.raw_os_error().unwrap_or(0));
        }
        acknowledged.fetch_add(1, Ordering::AcqRel);
        std::thread::sleep(PAUSE);
    }
    None
}

fn line(number: u64) -> Vec<u8> {
    format!("{number:015}\n").into_bytes()
}

/// Reads a log: whole lines in order, at least `acknowledged` of them. Gives how many.
///
/// # Errors
/// What is missing or wrong.
pub fn check_log(path: &Path, acknowledged: u64) -> Result<u64> {
    let found = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let lines = found.len() as u64 / LINE_BYTES;
    ensure!(lines >= acknowledged, "{lines} lines of {acknowledged} that were acknowledged");
    let whole: Vec<u8> = (0..lines).flat_map(line).collect();
    ensure!(found == whole, "{}: not the lines that were written", path.display());
    Ok(lines)
}

/// Something that is done again and again, and how long it took.
pub struct Looks {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

struct Seen {
    what: &'static str,
    looks: u64,
    longest: Duration,
    began: Option<Instant>,
    error: Option<String>,
}

/// A look: what it is called, and what it does.
pub type Look = (&'static str, Box<dyn Fn() -> Result<()> + Send>);

impl Looks {
    /// Starts them, each on a thread of its own.
    #[must_use]
    pub fn start(looks: Vec<Look>) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let mut threads = Vec::new();
        for (number, (what, look)) in looks.into_iter().enumerate() {
            let new = Seen { what, looks: 0, longest: Duration::ZERO, began: None, error: None };
            seen.lock().expect("no panic").push(new);
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    seen.lock().expect("no panic")[number].began = Some(began);
                    let result = look();
                    let mut all = seen.lock().expect("no panic");
                    let mine = &mut all[number];
                    mine.began = None;
                    mine.looks += 1;
                    mine.longest = mine.longest.max(began.elapsed());
                    if let Err(error) = result {
                        mine.error.get_or_insert(format!("{error:#}"));
                    }
                    drop(all);
                    std::thread::sleep(PAUSE);
                }
            }));
        }
        Self { stop, threads, seen }
    }

    /// Ends them; wants that none failed and none took, or takes, longer than `limit`.
    ///
    /// # Errors
    /// Which did.
    pub fn end(self, limit: Duration) -> Result<()> {
        // Each is done once at least; one that hangs is seen below.
        let once = || self.seen.lock().expect("no panic").iter().all(|seen| seen.looks > 0);
        let _hangs = wait::until("every look", limit, || once().then_some(()));
        self.stop.store(true, Ordering::Relaxed);
        let all = self.seen.lock().expect("no panic");
        for seen in &*all {
            let now = seen.began.map_or(Duration::ZERO, |began| began.elapsed());
            let longest = seen.longest.max(now);
            eprintln!("{}: {} times, at most {longest:.1?}", seen.what, seen.looks);
            ensure!(longest <= limit, "{} took {longest:.1?}", seen.what);
            ensure!(seen.looks > 0, "{} was never done", seen.what);
            if let Some(error) = &seen.error {
                anyhow::bail!("{}: {error}", seen.what);
            }
        }
        drop(all);
        for thread in self.threads {
            let _ = thread.join();
        }
        Ok(())
    }
}
