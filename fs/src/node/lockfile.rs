//! One daemon per data directory: a locked file that says who holds it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

/// Name of the file in the data directory.
const NAME: &str = "lock";

/// The lock on a data directory; the system lets go of it when the process ends, however.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

/// Who holds a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id; 0 where the file does not say.
    pub pid: u32,
    /// When it started, in seconds since 1970.
    pub since: u64,
}

/// Why a data directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error(
        "{0} is in use by process {pid}, started {ago} ago",
        pid = .1.pid,
        ago = ago(.1.since)
    )]
    Held(PathBuf, Holder),
    /// Some system call failed.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// Locks `data_dir`, which is there.
///
/// # Errors
/// `Held` with who holds it.
pub fn lock(data_dir: &Path) -> Result<DataLock, LockError> {
    let path = data_dir.join(NAME);
    let fail = |error: io::Error| LockError::Io(path.clone(), error);
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            return Err(LockError::Held(data_dir.to_owned(), parse(&text)));
        }
        Err(errno) => return Err(fail(errno.into())),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "pid {} since {}", std::process::id(), now())
    };
    write(&mut file).map_err(fail)?;
    Ok(DataLock { _file: file })
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn parse(text: &str) -> Holder {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["pid", pid, "since", since] => {
            Holder { pid: pid.parse().unwrap_or(0), since: since.parse().unwrap_or(0) }
        }
        _ => Holder { pid: 0, since: 0 },
    }
}

fn ago(since: u64) -> String {
    let seconds = now().saturating_sub(since);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_is_told_who_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        let told = lock(dir.path()).unwrap_err().to_string();
        assert!(told.contains(&format!("process {}", std::process::id())), "{told}");
        drop(first);
        lock(dir.path()).unwrap();
    }
}
