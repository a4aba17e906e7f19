//! A user's home on a contender: where workloads run and are timed.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use yadokari_tests::process::{kill_group, tail};
use yadokari_tests::user::User;

use crate::contender::Contender;
use crate::results::{Better, Metric};
use crate::stop;
use crate::usage;

/// What a script prints its time behind.
const MARK: &str = "@took";

/// How a timed script ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Took {
    /// Seconds from its first command to its last.
    Seconds(f64),
    /// It was stopped after so many seconds.
    Stopped(f64),
}

/// One contender, one user, and what was measured so far.
pub struct Place<'a> {
    pub contender: &'a mut dyn Contender,
    pub user: &'a User,
    pub metrics: Vec<Metric>,
    limit: Duration,
}

impl<'a> Place<'a> {
    /// A script takes at most `limit`.
    pub fn new(contender: &'a mut dyn Contender, user: &'a User, limit: Duration) -> Self {
        Self { contender, user, metrics: Vec::new(), limit }
    }

    /// Runs a script that is not measured; gives its standard output.
    ///
    /// # Errors
    /// Any exit code but 0.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.user.sh(script)
    }

    /// Runs and times a script; notes seconds, and the daemon's seconds of CPU and memory.
    ///
    /// # Errors
    /// Any exit code but 0. That it was stopped for taking too long is no error.
    pub fn time(&mut self, name: &'static str, script: &str) -> Result<Took> {
        self.time_with(name, "", script)
    }

    /// The same, with commands before the script that are not timed.
    ///
    /// # Errors
    /// As [`Self::time`].
    pub fn time_with(&mut self, name: &'static str, before: &str, script: &str) -> Result<Took> {
        let pids = self.contender.pids();
        usage::reset_peaks(&pids);
        let cpu = usage::cpu_seconds(&pids);
        let (took, _) = timed(self.user.command("bash"), before, script, self.limit)
            .with_context(|| format!("{}: {name}", self.contender.name()))?;
        let (value, stopped) = match took {
            Took::Seconds(seconds) => (seconds, false),
            Took::Stopped(seconds) => (seconds, true),
        };
        self.metrics.push(Metric {
            name: name.to_owned(),
            unit: "s",
            better: Better::Lower,
            value,
            stopped,
            daemon_cpu_s: usage::cpu_seconds(&pids) - cpu,
            daemon_rss_mib: usage::peak_mib(&pids),
        });
        Ok(took)
    }

    /// Notes a value that a workload found itself.
    pub fn note(&mut self, name: &str, unit: &'static str, better: Better, value: f64) {
        let pids = self.contender.pids();
        self.metrics.push(Metric::noted(name, unit, better, value, &pids));
    }

    /// Nothing is left to be written by what ran before.
    ///
    /// # Errors
    /// What the contender said.
    pub fn settle(&mut self) -> Result<()> {
        self.contender.settle()
    }

    /// As after a start of the machine: the daemon new, the kernel's caches empty.
    ///
    /// # Errors
    /// What the contender said.
    pub fn cold(&mut self) -> Result<()> {
        self.contender.settle()?;
        self.contender.restart()?;
        usage::drop_caches()
    }

    /// The kernel's caches empty, the daemon as it was.
    ///
    /// # Errors
    /// Those of the system.
    pub fn drop_caches(&mut self) -> Result<()> {
        self.contender.settle()?;
        usage::drop_caches()
    }
}

/// Runs `script` as `command`'s bash and gives the seconds it took, measured in that bash, with
/// its standard output.
///
/// # Errors
/// Any exit code but 0.
pub fn timed(
    mut command: Command,
    before: &str,
    script: &str,
    limit: Duration,
) -> Result<(Took, String)> {
    let whole = format!(
        "{before}\nyadokari_from=$EPOCHREALTIME\n{script}\n\
         echo \"{MARK} $yadokari_from $EPOCHREALTIME\""
    );
    command.args(["-euo", "pipefail", "-c", &whole]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().context("starting bash")?;
    let out = drain(child.stdout.take());
    let err = drain(child.stderr.take());
    stop::set_timed(child.id());
    let stopped = wait_within(&mut child, limit);
    stop::set_timed(0);
    let stopped = stopped?;
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    if stopped {
        return Ok((Took::Stopped(limit.as_secs_f64()), out));
    }
    let seconds = out.lines().rev().find_map(|line| {
        let mut times = line.strip_prefix(MARK)?.split_whitespace().map(str::parse::<f64>);
        let (from, to) = (times.next()?.ok()?, times.next()?.ok()?);
        Some(to - from)
    });
    match seconds {
        Some(seconds) => Ok((Took::Seconds(seconds), out)),
        None if stop::asked() => bail!("ended by a signal"),
        None => bail!("{script}\nfailed:\n{}{}", tail(&out), tail(&err)),
    }
}

/// Waits for the end; gives whether the group had to be killed.
fn wait_within(child: &mut Child, limit: Duration) -> Result<bool> {
    let (ended, end) = mpsc::channel::<()>();
    let killed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&killed);
    let id = child.id();
    // A thread of its own, so that the end is seen at once and not at the next look.
    let watchdog = std::thread::spawn(move || {
        if end.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            flag.store(true, Ordering::Release);
            stop::kill_group(id);
        }
    });
    let status = child.wait();
    drop(ended);
    let _ = watchdog.join();
    kill_group(child);
    status?;
    Ok(killed.load(Ordering::Acquire))
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
