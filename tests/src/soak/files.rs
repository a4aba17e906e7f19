//! Writing with fsync, as databases, mail servers and editors do it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Place, Work, lock};
use crate::kept;

/// Nothing here is to fill the store, but to sync often.
const PAUSE: Duration = Duration::from_millis(2);

/// Appends records to a log and syncs them.
#[derive(Debug, Default)]
pub struct Appender {
    durable: AtomicU64,
}

const RECORD_BYTES: usize = 64;

fn record(number: u64) -> [u8; RECORD_BYTES] {
    let mut record = [b'.'; RECORD_BYTES];
    let text = format!("{number:020} {:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    record[..text.len()].copy_from_slice(text.as_bytes());
    record[RECORD_BYTES - 1] = b'\n';
    record
}

impl Appender {
    /// Whole records that are there, which must include what was promised.
    fn look(&self, log: &File) -> Result<u64> {
        let mut bytes = vec![0; usize::try_from(log.metadata()?.len())?];
        log.read_exact_at(&mut bytes, 0)?;
        let there = (bytes.len() / RECORD_BYTES) as u64;
        let promised = self.durable.load(Ordering::SeqCst);
        kept!(there >= promised, "{there} records in the log, {promised} were synced");
        for (number, found) in (0..promised).zip(bytes.chunks(RECORD_BYTES)) {
            kept!(found == record(number), "record {number} of {promised} is damaged");
        }
        // Behind them stands what was not synced, and perhaps holes.
        Ok(promised)
    }
}

impl Work for Appender {
    fn name(&self) -> String {
        "log".into()
    }

    fn work(&self, place: &Place) -> Result<()> {
        let path = place.dir.join("log");
        let mut options = OpenOptions::new();
        let mut log = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let mut number = self.look(&log)?;
        log.set_len(number * RECORD_BYTES as u64)?;
        std::io::Seek::seek(&mut log, std::io::SeekFrom::End(0))?;
        while !place.is_over() {
            for _ in 0..3 {
                log.write_all(&record(number))?;
                number += 1;
            }
            log.sync_data()?;
            self.durable.store(number, Ordering::SeqCst);
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn check(&self, place: &Place) -> Result<()> {
        self.look(&File::open(place.dir.join("log"))?).map(drop)
    }

    fn promised(&self) -> u64 {
        self.durable.load(Ordering::SeqCst)
    }
}

/// Makes files, syncs them, and removes them again, for good.
#[derive(Debug, Default)]
pub struct Maker {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    next: u64,
    /// Synced.
    there: BTreeSet<u64>,
    /// Removed, and their directory synced.
    gone: BTreeSet<u64>,
    count: u64,
}

/// Files that stay at most.
const STAY_MAX: usize = 300;

/// Contents of a file; of every size from nothing to some chunks.
fn content(number: u64) -> Vec<u8> {
    let len = number * 7919 % 300_000;
    (0..len).map(|at| ((at / 7) ^ (at % 13) ^ number) as u8).collect()
}

impl Maker {
    fn look(&self, dir: &Path, all: bool) -> Result<()> {
        let known = lock(&self.known);
        let step = if all { 1 } else { 10 };
        for number in known.there.iter().rev().step_by(step) {
            let path = dir.join(format!("f{number}"));
            let found = match fs::read(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                found => Some(found.with_context(|| path.display().to_string())?),
            };
            kept!(found.is_some(), "{} was synced and is gone", path.display());
            kept!(found == Some(content(*number)), "{} holds something else", path.display());
        }
        for number in known.gone.iter().rev().take(if all { usize::MAX } else { 100 }) {
            let path = dir.join(format!("f{number}"));
            match path.symlink_metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
                Ok(_) => kept!(false, "{} was removed for good and is back", path.display()),
            }
        }
        Ok(())
    }
}

impl Work for Maker {
    fn name(&self) -> String {
        "files".into()
    }

    fn work(&self, place: &Place) -> Result<()> {
        self.look(&place.dir, false)?;
        while !place.is_over() {
            let number = {
                let mut known = lock(&self.known);
                known.next += 1;
                known.next
            };
            let path = place.dir.join(format!("f{number}"));
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.write_all(&content(number))?;
            // One in three is promised, one in three is removed at once.
            match number % 3 {
                0 => {
                    file.sync_all()?;
                    let mut known = lock(&self.known);
                    known.there.insert(number);
                    known.count += 1;
                }
                1 => fs::remove_file(&path)?,
                _ => {}
            }
            let oldest = {
                let mut known = lock(&self.known);
                let many = known.there.len() > STAY_MAX;
                if many { known.there.pop_first() } else { None }
            };
            if let Some(oldest) = oldest {
                fs::remove_file(place.dir.join(format!("f{oldest}")))?;
                let _ = fs::remove_file(place.dir.join(format!("f{}", oldest - 1)));
                File::open(&place.dir)?.sync_all()?;
                let mut known = lock(&self.known);
                known.gone.insert(oldest);
                known.count += 1;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn check(&self, place: &Place) -> Result<()> {
        self.look(&place.dir, true)
    }

    fn promised(&self) -> u64 {
        lock(&self.known).count
    }
}

/// Replaces files as editors do: written beside, synced, renamed over, and the directory synced.
#[derive(Debug, Default)]
pub struct Replacer {
    versions: Mutex<BTreeMap<u64, u64>>,
    count: AtomicU64,
}

/// Files that are replaced in turn.
const REPLACED: u64 = 5;

fn version(file: u64, number: u64) -> Vec<u8> {
    let line = format!("version {number} of {file}\n");
    line.repeat(1 + usize::try_from(number % 500).expect("is small")).into_bytes()
}

impl Replacer {
    fn look(&self, dir: &Path) -> Result<()> {
        for (file, promised) in &*lock(&self.versions) {
            let found = fs::read(dir.join(format!("r{file}")))?;
            let text = String::from_utf8_lossy(&found);
            let number = text.split(' ').nth(1).and_then(|number| number.parse::<u64>().ok());
            kept!(number.is_some_and(|n| found == version(*file, n)), "r{file} is mixed or cut");
            kept!(number >= Some(*promised), "r{file} is {number:?} again, {promised} was synced");
        }
        Ok(())
    }
}

impl Work for Replacer {
    fn name(&self) -> String {
        "replaced".into()
    }

    fn work(&self, place: &Place) -> Result<()> {
        self.look(&place.dir)?;
        while !place.is_over() {
            let count = self.count.fetch_add(1, Ordering::SeqCst);
            let (file, number) = (count % REPLACED, count / REPLACED);
            let (fresh, path) =
                (place.dir.join(format!("r{file}.tmp")), place.dir.join(format!("r{file}")));
            let mut writing = File::create(&fresh)?;
            writing.write_all(&version(file, number))?;
            writing.sync_all()?;
            fs::rename(fresh, path)?;
            File::open(&place.dir)?.sync_all()?;
            lock(&self.versions).insert(file, number);
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn check(&self, place: &Place) -> Result<()> {
        self.look(&place.dir)
    }

    fn promised(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }
}
