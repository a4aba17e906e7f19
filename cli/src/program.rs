//! Asking other programs: bounded in time, their words kept.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Nobody waits longer than this for a program.
const TIME_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// What a program said.
pub struct Said {
    /// It ended with 0.
    pub success: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// The first two numbers in what a program says of its version.
pub fn version(said: &str) -> (u32, u32) {
    let mut numbers =
        said.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Runs `program`; an error is a sentence that says why it could not be asked.
pub fn ask(program: &str, arguments: &[&str]) -> Result<Said, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let deadline = Instant::now() + TIME_MAX;
    // The programs asked here say a few lines, which fit into the pipe while nobody reads.
    while child.try_wait().map_err(|error| format!("{program}: {error}"))?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{program} did not answer within {} s", TIME_MAX.as_secs()));
        }
        std::thread::sleep(POLL);
    }
    let output = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(Said {
        success: output.status.success(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    })
}

/// Where a program lies, in PATH and where administrators' programs are.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/bin"])
        .map(|dir| PathBuf::from(dir).join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_first_two_numbers() {
        assert_eq!(version("podman version 4.3.1"), (4, 3));
        assert_eq!(version("6.1.0-18-amd64"), (6, 1));
        assert_eq!(version("podman version 5"), (5, 0));
        assert_eq!(version(""), (0, 0));
    }

    #[test]
    fn what_cannot_be_asked_is_named() {
        let why = ask("no-such-program", &[]).err().unwrap_or_default();
        assert!(why.starts_with("no-such-program: "), "{why}");
        let said = ask("sh", &["-c", "echo out; echo err >&2; exit 3"]).expect("asked");
        assert_eq!((said.success, &*said.out, &*said.err), (false, "out", "err"));
    }
}
