//! SIGINT and SIGTERM end a run in order: what is timed at that moment is killed, contenders are
//! ended and unmounted, their users removed. The second one ends it at once.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

static ASKED: AtomicBool = AtomicBool::new(false);
/// The process group that is timed, or 0.
static TIMED: AtomicU32 = AtomicU32::new(0);
/// What a shell says of a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// From now on.
///
/// # Errors
/// Where signals cannot be listened for.
pub fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    drop(entered);
    std::thread::spawn(move || runtime.block_on(heed(interrupt, terminate)));
    Ok(())
}

async fn heed(
    mut interrupt: tokio::signal::unix::Signal,
    mut terminate: tokio::signal::unix::Signal,
) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if ASKED.swap(true, Ordering::AcqRel) {
            std::process::exit(INTERRUPTED);
        }
        eprintln!("ending what runs; once more to end at once");
        kill_group(TIMED.load(Ordering::Acquire));
    }
}

/// Whether the run shall end.
pub fn asked() -> bool {
    ASKED.load(Ordering::Acquire)
}

/// The process group that is timed from now on; 0 for none.
pub fn set_timed(group: u32) {
    TIMED.store(group, Ordering::Release);
    if asked() {
        kill_group(group);
    }
}

/// Kills a process group, if there is one.
pub fn kill_group(id: u32) {
    if let Some(pid) = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}
