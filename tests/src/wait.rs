//! Waiting with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(20);

/// Waits until `ready` gives something; `what` is for the error.
///
/// # Errors
/// When `limit` has passed.
pub fn until<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = ready() {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(POLL);
    }
}

/// Runs `work` on a thread of its own and gives up on it after `limit`: a hung file system call
/// cannot be interrupted, but the test must end and say so.
///
/// # Errors
/// When `limit` has passed; what `work` gave otherwise.
pub fn within<T: Send + 'static>(
    what: &str,
    limit: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (done, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = done.send(work());
    });
    match waiting.recv_timeout(limit) {
        Ok(result) => result,
        Err(_) => bail!("{what}: not within {limit:?}"),
    }
}
