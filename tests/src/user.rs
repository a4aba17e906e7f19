//! Plain users of the system, made for one test and removed with it.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

use anyhow::{Context, Result, bail, ensure};

use crate::process;

/// useradd locks /etc/passwd and does not wait.
static ACCOUNTS: Mutex<()> = Mutex::new(());
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A user with subordinate ids, a runtime directory, and no home yet.
#[derive(Debug)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// `$HOME` in [`User::command`].
    pub home: PathBuf,
    runtime: PathBuf,
}

impl User {
    /// Makes one whose home will be `homes/NAME`; the home itself is not made.
    ///
    /// # Errors
    /// When useradd fails; root is needed.
    pub fn create(homes: &Path) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "these tests make users: run them as root");
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        // Numbers of processes come again, and what a killed test left would be in the way. Short,
        // since the path of a socket must be.
        static RUN: LazyLock<u32> = LazyLock::new(|| rand::random::<u32>() & 0xf_ffff);
        let name = format!("yk{:x}x{number}", *RUN);
        let home = homes.join(&name);
        {
            let _one_at_a_time = ACCOUNTS.lock().unwrap_or_else(|poison| poison.into_inner());
            process::ok(
                Command::new("useradd").args(["-M", "-s", "/bin/bash", "-d"]).arg(&home).arg(&name),
            )?;
        }
        let line = process::ok(Command::new("getent").args(["passwd", &name]))?;
        let mut fields = line.split(':').skip(2).map(|field| field.parse::<u32>());
        let (Some(Ok(uid)), Some(Ok(gid))) = (fields.next(), fields.next()) else {
            bail!("getent passwd {name} says {line:?}");
        };
        let subordinate = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
        ensure!(
            subordinate.lines().any(|l| l.starts_with(&format!("{name}:"))),
            "useradd gave {name} no subordinate ids: is the package uidmap installed?"
        );
        let runtime = std::env::temp_dir().join(format!("run-{name}"));
        std::fs::DirBuilder::new().mode(0o700).create(&runtime)?;
        chown(&runtime, Some(uid), Some(gid))?;
        Ok(Self { name, uid, gid, home, runtime })
    }

    /// Makes the home as a plain directory: the local side of comparisons.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_plain_home(&self) -> Result<()> {
        std::fs::create_dir(&self.home)?;
        std::fs::set_permissions(&self.home, std::fs::Permissions::from_mode(0o700))?;
        Ok(chown(&self.home, Some(self.uid), Some(self.gid))?)
    }

    /// `program` as this user, with a clean environment, in their home.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &self.uid.to_string(), "--regid", &self.gid.to_string()]);
        command.args(["--init-groups", "env", "-i"]);
        command.arg(format!("--chdir={}", self.home.display()));
        for (name, value) in [
            ("HOME", self.home.to_string_lossy()),
            ("USER", self.name.as_str().into()),
            ("LOGNAME", self.name.as_str().into()),
            ("XDG_RUNTIME_DIR", self.runtime.to_string_lossy()),
            ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin".into()),
            ("LANG", "C.UTF-8".into()),
        ] {
            command.arg(format!("{name}={value}"));
        }
        command.arg(program);
        command
    }

    /// Runs a bash script as this user and wants exit code 0; gives standard output.
    ///
    /// # Errors
    /// As [`process::ok`].
    pub fn sh(&self, script: &str) -> Result<String> {
        // Traced, so that an error shows which line it was.
        process::ok(self.command("bash").args(["-euxo", "pipefail", "-c", script]))
            .with_context(|| format!("as {}: {script}", self.name))
    }

    /// Runs a bash script as this user, whatever it says.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn try_sh(&self, script: &str) -> Result<process::Said> {
        process::run(self.command("bash").args(["-euo", "pipefail", "-c", script]))
    }

    /// Ends every process of this user: containers and their helpers outlive who started them.
    pub fn end_processes(&self) {
        // Subordinate ids are theirs too, so a container's init is found by its owner's range.
        for pid in processes_of(self.uid, &subordinate_range(&self.name)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.end_processes();
        let runtime = self.runtime.display().to_string();
        // Rootless Podman leaves mounts of its network namespace there.
        let _ = process::sh(&format!(
            "{{ grep -o ' {runtime}[^ ]*' /proc/self/mounts || true; }} | sort -r | \
             xargs -r -n1 umount -l; rm -rf --one-file-system {runtime}"
        ));
        let _one_at_a_time = ACCOUNTS.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Err(error) = process::ok(Command::new("userdel").args(["-f", &self.name])) {
            eprintln!("leftover user {}: {error:#}", self.name);
        }
    }
}

fn subordinate_range(name: &str) -> std::ops::Range<u32> {
    let text = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    let range = text.lines().find_map(|line| {
        let (first, count) = line.strip_prefix(name)?.strip_prefix(':')?.split_once(':')?;
        let first: u32 = first.parse().ok()?;
        Some(first..first.checked_add(count.parse().ok()?)?)
    });
    range.unwrap_or(0..0)
}

fn processes_of(uid: u32, range: &std::ops::Range<u32>) -> Vec<rustix::process::Pid> {
    let Ok(proc) = std::fs::read_dir("/proc") else { return Vec::new() };
    proc.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or("");
            let ids = line.split_whitespace().filter_map(|id| id.parse::<u32>().ok());
            ids.into_iter().any(|id| id == uid || range.contains(&id))
        })
        .filter_map(rustix::process::Pid::from_raw)
        .collect()
}
