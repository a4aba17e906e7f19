//! Children that never outlive this process, and a directory that does not either.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// A daemon that stops in order does so within this time, or is killed.
const STOP_MAX: Duration = Duration::from_secs(30);

/// Fails with the names of the packages that are missing.
pub(super) fn require(tools: &[(&str, &str)]) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let mut missing: Vec<&str> =
        tools.iter().filter(|(tool, _)| !found(tool)).map(|(_, package)| *package).collect();
    missing.dedup();
    if !missing.is_empty() {
        bail!("packages are missing: apt-get install {}", missing.join(" "));
    }
    Ok(())
}

/// Runs a command to its end; standard output, or an error with what it said.
pub(super) fn output(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command with lines on its standard input. `ceph` does not tell by its exit code whether
/// a line failed, but says so.
pub(super) fn run_with_input(mut command: Command, input: &str) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("running {command:?}"))?;
    let stdin = child.stdin.take().context("a pipe was asked for")?;
    { stdin }.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || said.contains("Error E") || said.contains("Invalid command") {
        bail!("{input:?}: {}: {}", output.status, said.trim());
    }
    Ok(())
}

/// A running daemon.
pub(super) struct Daemon(Child);

impl Daemon {
    pub(super) fn signal(&self, signal: i32) -> Result<()> {
        let pid = i32::try_from(self.0.id())?;
        // SAFETY: kill takes no pointers; the child was not waited for, so the id is its own.
        if unsafe { libc::kill(pid, signal) } != 0 {
            return Err(std::io::Error::last_os_error()).context("signalling a daemon");
        }
        Ok(())
    }

    /// Waits until a SIGSTOP has reached every thread.
    pub(super) fn wait_until_stopped(&self) -> Result<()> {
        let threads = format!("/proc/{}/task", self.0.id());
        let deadline = Instant::now() + STOP_MAX;
        loop {
            let mut running = 0;
            for thread in std::fs::read_dir(&threads)? {
                let stat = std::fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
                // The state follows the name, which is in parentheses and may hold any.
                let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
                running += usize::from(!state.is_empty() && !state.starts_with(['T', 't', 'Z']));
            }
            if running == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{running} threads of a daemon did not stop within {STOP_MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    pub(super) fn stop(mut self) -> Result<()> {
        self.signal(libc::SIGTERM)?;
        let deadline = Instant::now() + STOP_MAX;
        while self.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.kill()?;
                bail!("a daemon did not stop within {STOP_MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Starts a daemon that is killed when this process ends in any way. It has a session of its own,
/// as a service has: the kernel shares the processors out by session first.
pub(super) fn spawn(mut command: Command, log: &Path) -> Result<Daemon> {
    let log = File::create(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: prctl and setsid are async-signal-safe; nothing else runs between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let failed = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0;
            if failed || libc::setsid() < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let (answer, answered) = channel();
    let keeper = keeper().lock().map_err(|_poisoned| anyhow::anyhow!("the keeper is gone"))?;
    keeper.send((command, answer)).context("the keeper is gone")?;
    Ok(Daemon(answered.recv()?.context("starting a daemon")?))
}

type Order = (Command, Sender<std::io::Result<Child>>);

/// The kernel sends the death signal when the thread that forked ends, not the process. So all
/// daemons are forked by one thread that never does.
fn keeper() -> &'static Mutex<Sender<Order>> {
    static KEEPER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    KEEPER.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                // Whoever gave the order waits for the answer.
                let _waiting = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    })
}

/// A directory that is removed by a helper when this process has ended, however it ended.
pub(super) struct Scratch {
    path: PathBuf,
    _janitor: Child,
    _open_while_alive: ChildStdin,
}

impl Scratch {
    pub(super) fn new() -> Result<Scratch> {
        // Short, because the paths of sockets have 107 bytes.
        let path = tempfile::Builder::new().prefix("yceph").tempdir()?.keep();
        let script = "cat >/dev/null; for i in 1 2 3 4 5; do rm -rf \"$0\" && exit; sleep 1; done";
        let mut janitor = Command::new("sh");
        janitor.args(["-c", script]).arg(&path).process_group(0);
        janitor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut janitor = janitor.spawn().context("starting sh")?;
        let stdin = janitor.stdin.take().context("a pipe was asked for")?;
        Ok(Scratch { path, _janitor: janitor, _open_while_alive: stdin })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
