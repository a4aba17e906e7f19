//! A daemon in the foreground that serves a mount, ended with its mount in any case.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use yadokari_tests::instance::is_mounted;
use yadokari_tests::{process, wait};

/// Starting, and replaying what is left over, takes at most this.
const START_MAX: Duration = Duration::from_secs(120);
/// A clean stop writes everything; at most this.
const STOP_MAX: Duration = Duration::from_secs(300);

/// How one sees that it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It prints a line that begins with `ready`.
    Line,
    /// Its mount is there.
    Mounted,
}

/// A daemon that runs.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    mount: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` in a session of its own, as a service has, and waits until it serves
    /// `mount`. The kernel shares the processors out by session first (`sched_autogroup`), so
    /// sixteen threads of a user do not leave the daemon a seventeenth of them.
    ///
    /// # Errors
    /// With the end of what it said.
    pub fn start(command: Command, mount: &Path, log: &Path, ready: Ready) -> Result<Self> {
        let mut command = in_own_session(&command);
        let err = File::options().create(true).append(true).open(log)?;
        let out = if ready == Ready::Line { Stdio::piped() } else { err.try_clone()?.into() };
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let out = child.stdout.take();
        let (mount, log) = (mount.to_owned(), log.to_owned());
        let mut daemon = Self { child, mount, log };
        let served = match out {
            Some(out) => heard_ready(out),
            None => daemon.wait_mounted(),
        };
        served.with_context(|| {
            let said = std::fs::read_to_string(&daemon.log).unwrap_or_default();
            format!("{command:?} does not serve:\n{}", process::tail(&said))
        })?;
        Ok(daemon)
    }

    fn wait_mounted(&mut self) -> Result<()> {
        let mount = self.mount.clone();
        wait::until("the mount", START_MAX, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(Err(anyhow::anyhow!("it ended with {status}")));
            }
            is_mounted(&mount).ok().filter(|mounted| *mounted).map(|_| Ok(()))
        })?
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in order: by unmounting, or by SIGTERM.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(mut self, by_unmount: bool) -> Result<()> {
        if by_unmount {
            process::sh(&format!("umount {}", self.mount.display()))?;
        } else {
            let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw);
            let pid = pid.context("a process id")?;
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let ended = || self.child.try_wait().transpose();
        let status = wait::until("the end of a daemon", STOP_MAX, ended)??;
        ensure!(status.success() || by_unmount, "a daemon ended with {status}");
        Ok(())
    }
}

fn heard_ready(out: std::process::ChildStdout) -> Result<()> {
    let (said, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(out).lines().map_while(Result::ok);
        // What it says later is read too, so that it never waits for a full pipe.
        for line in lines {
            let _nobody_listens = said.send(line);
        }
    });
    match heard.recv_timeout(START_MAX) {
        Ok(line) if line.starts_with("ready") => Ok(()),
        Ok(line) => bail!("it said {line:?} instead of `ready …`"),
        Err(error) => bail!("it is not ready after {START_MAX:?}: {error}"),
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mount = self.mount.display();
        // Lazily: a hung mount must not hang what follows.
        let _ = process::sh(&format!(
            "grep -o ' {mount}[^ ]*' /proc/self/mounts | sort -r | xargs -r -n1 umount -l"
        ));
    }
}

/// `command` behind `setsid`, which becomes it: the process id stays the same.
fn in_own_session(command: &Command) -> Command {
    let mut own = Command::new("setsid");
    own.arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        own.current_dir(dir);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => own.env(name, value),
            None => own.env_remove(name),
        };
    }
    own
}
