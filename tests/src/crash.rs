//! Load for crash tests: what was promised is written down outside of what crashes.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail, ensure};

/// Every record of a synced log is this long.
const RECORD_BYTES: usize = 64;

/// What the file system acknowledged as durable, by path.
#[derive(Debug, Default)]
pub struct Promises {
    /// Records that a returned fsync covers, per log.
    logs: Mutex<Vec<(PathBuf, Arc<AtomicU64>)>>,
    /// Whole files: their contents at the last returned fsync, then not touched again.
    files: Mutex<Vec<(PathBuf, u8, usize)>>,
}

/// Threads that work until the mount dies under them or they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts appenders, file makers and replacers in `dir`, a fresh directory per load.
    #[must_use]
    pub fn start(dir: &Path, promises: &Arc<Promises>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for number in 0..3 {
            let (dir, stop, promises) = (dir.to_owned(), Arc::clone(&stop), Arc::clone(promises));
            threads.push(std::thread::spawn(move || {
                // The end of each is the error of the mount that was killed.
                let _ = match number {
                    0 => append(&dir.join("log"), &stop, &promises),
                    1 => make_files(&dir.join("files"), &stop, &promises),
                    _ => replace(&dir.join("replaced"), &stop),
                };
            }));
        }
        Self { stop, threads }
    }

    /// Waits for the threads, which the death of the mount ends too.
    pub fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

impl Promises {
    /// Everything that was acknowledged must be there.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn check(&self) -> Result<()> {
        for (path, records) in self.logs.lock().unwrap_or_else(|p| p.into_inner()).iter() {
            let records = records.load(Ordering::SeqCst);
            check_log(path, records).with_context(|| path.display().to_string())?;
        }
        for (path, seed, length) in self.files.lock().unwrap_or_else(|p| p.into_inner()).iter() {
            let found = fs::read(path).with_context(|| format!("{} was synced", path.display()))?;
            ensure!(found == contents(*seed, *length), "{}: other contents", path.display());
        }
        Ok(())
    }

    /// How much was promised, so that a test can tell that its load did something.
    #[must_use]
    pub fn count(&self) -> u64 {
        let logs = self.logs.lock().unwrap_or_else(|p| p.into_inner());
        let records: u64 = logs.iter().map(|(_, records)| records.load(Ordering::SeqCst)).sum();
        records + self.files.lock().unwrap_or_else(|p| p.into_inner()).len() as u64
    }
}

/// Replaces `dir/f` through a temporary file without any fsync, over and over.
///
/// # Errors
/// That of the mount when it dies.
pub fn replace(dir: &Path, stop: &AtomicBool) -> Result<()> {
    fs::create_dir_all(dir)?;
    let (file, fresh) = (dir.join("f"), dir.join("f.tmp"));
    let mut round = 0_u8;
    while !stop.load(Ordering::Relaxed) {
        round = round.wrapping_add(1);
        fs::write(&fresh, contents(round, 3000 + usize::from(round) * 100))?;
        fs::rename(&fresh, &file)?;
    }
    Ok(())
}

/// What [`replace`] left must be one of the versions, whole; gives whether there is a file.
///
/// # Errors
/// When it is empty, cut, or mixed.
pub fn check_replaced(dir: &Path) -> Result<bool> {
    let file = dir.join("f");
    let found = match fs::read(&file) {
        Ok(found) => found,
        // Killed before the first rename was committed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).context(file.display().to_string()),
    };
    let Some(round) = found.len().checked_sub(3000).map(|more| more / 100) else {
        bail!("{}: cut to {} bytes", file.display(), found.len());
    };
    let round = u8::try_from(round).context("longer than any version")?;
    let whole = contents(round, 3000 + usize::from(round) * 100);
    ensure!(found == whole, "{}: {} bytes, mixed or cut", file.display(), found.len());
    Ok(true)
}

fn append(path: &Path, stop: &AtomicBool, promises: &Promises) -> Result<()> {
    let durable = Arc::new(AtomicU64::new(0));
    let mut log = File::create(path)?;
    promises
        .logs
        .lock()
        .unwrap_or_else(|p| p.into_inner())
        .push((path.to_owned(), Arc::clone(&durable)));
    let mut record = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..3 {
            log.write_all(&log_record(record))?;
            record += 1;
        }
        log.sync_data()?;
        durable.store(record, Ordering::SeqCst);
    }
    Ok(())
}

fn make_files(dir: &Path, stop: &AtomicBool, promises: &Promises) -> Result<()> {
    fs::create_dir_all(dir)?;
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let seed = u8::try_from(number % 251)?;
        let length = usize::try_from(number * 7919 % 200_000)?;
        let path = dir.join(format!("f{number}"));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.write_all(&contents(seed, length))?;
        // One in three is promised; the others make noise around it.
        if number.is_multiple_of(3) {
            file.sync_all()?;
            let mut files = promises.files.lock().unwrap_or_else(|p| p.into_inner());
            files.push((path, seed, length));
        } else if number.is_multiple_of(7) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn check_log(path: &Path, records: u64) -> Result<()> {
    let mut log = File::open(path)?;
    let length = log.metadata()?.len();
    let promised = records * RECORD_BYTES as u64;
    ensure!(length >= promised, "{length} bytes, but {promised} were synced");
    let mut bytes = Vec::new();
    log.read_to_end(&mut bytes)?;
    for (number, record) in bytes.chunks(RECORD_BYTES).enumerate().take(usize::try_from(records)?) {
        ensure!(record == log_record(number as u64), "record {number} of {records} is damaged");
    }
    Ok(())
}

fn log_record(number: u64) -> [u8; RECORD_BYTES] {
    let mut record = [b'.'; RECORD_BYTES];
    let text = format!("{number:020} {:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    record[..text.len()].copy_from_slice(text.as_bytes());
    record[RECORD_BYTES - 1] = b'\n';
    record
}

fn contents(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| seed.wrapping_add((at / 7 % 256) as u8) ^ (at % 13) as u8).collect()
}
