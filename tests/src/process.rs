//! Running programs: bounded in time, all they said in the error.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Long enough for any one program of these tests on a busy machine with two cores.
pub const TIME_MAX: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(5);

/// What a program said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code; 128 + signal when one ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// The tests' own variables, which the program does not know, stay with the tests; what was set
/// for the command itself is passed on.
pub fn without_our_settings(command: &mut Command) -> &mut Command {
    let given: Vec<OsString> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("YADOKARI_") && !given.contains(&name) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs to the end, whatever it says.
///
/// # Errors
/// When it cannot be started, or takes longer than [`TIME_MAX`] (it is killed with its group).
pub fn run(command: &mut Command) -> Result<Said> {
    run_within(command, TIME_MAX)
}

/// Runs to the end, at most `limit`.
///
/// # Errors
/// When it cannot be started, or takes longer (it is killed with its group).
pub fn run_within(command: &mut Command, limit: Duration) -> Result<Said> {
    let shown = format!("{command:?}");
    let mut child = without_our_settings(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {shown}: is it installed? (`make test` installs it)"))?;
    let out = drain(child.stdout.take());
    let err = drain(child.stderr.take());
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            kill_group(&child);
            let _ = child.wait();
            bail!("{shown} did not end within {limit:?}");
        }
        std::thread::sleep(POLL);
    };
    let code = status.code().unwrap_or_else(|| {
        128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0)
    });
    let text = |reader: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    Ok(Said { code, out: text(out), err: text(err) })
}

/// Runs and wants exit code 0; gives standard output.
///
/// # Errors
/// As [`run`], and for any other exit code, with the end of what was said.
pub fn ok(command: &mut Command) -> Result<String> {
    let said = run(command)?;
    if said.code != 0 {
        bail!("{command:?} ended with {}:\n{}{}", said.code, tail(&said.out), tail(&said.err));
    }
    Ok(said.out)
}

/// Runs a shell script as root and wants exit code 0; gives standard output.
///
/// # Errors
/// As [`ok`].
pub fn sh(script: &str) -> Result<String> {
    ok(Command::new("bash").args(["-euo", "pipefail", "-c", script]))
}

/// `command`, with its environment, as what the program and arguments in `before` run.
#[must_use]
pub fn through(before: &[String], command: Command) -> Command {
    let [program, arguments @ ..] = before else { return command };
    let mut whole = Command::new(program);
    whole.args(arguments).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => whole.env(name, value),
            None => whole.env_remove(name),
        };
    }
    whole
}

/// The last lines of a text.
#[must_use]
pub fn tail(text: &str) -> String {
    const LINES_MAX: usize = 40;
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LINES_MAX);
    lines[from..].iter().map(|line| format!("  {line}\n")).collect()
}

/// Asks a child to end.
pub fn terminate(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// Kills the process group of a child that [`run_within`] or the harness started.
pub fn kill_group(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}
