//! The floor, as a process of its own: this very program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use yadokari_fs::view::Form;

use super::Contender;
use super::daemon::{Daemon, Ready};

/// The floor that runs. It keeps nothing, so it is never restarted.
#[derive(Debug)]
pub struct Floor {
    name: String,
    homes: PathBuf,
    daemon: Daemon,
}

impl Floor {
    /// Starts it.
    ///
    /// # Errors
    /// With what it said.
    pub fn start(name: &str, dir: &Path, form: Form) -> Result<Self> {
        let homes = dir.join("homes");
        std::fs::create_dir_all(&homes)?;
        let mut command = Command::new(program());
        command.arg("floor").arg(&homes);
        if form == Form::Shared {
            command.arg("--node");
        }
        let daemon = Daemon::start(command, &homes, &dir.join("log"), Ready::Line)?;
        Ok(Self { name: name.to_owned(), homes, daemon })
    }
}

/// This program, or the one beside the test that runs.
fn program() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let beside = exe.ancestors().nth(2).map(|dir| dir.join("yadokari-bench"));
    match beside.filter(|_| exe.parent().is_some_and(|dir| dir.ends_with("deps"))) {
        Some(built) => built,
        None => exe,
    }
}

impl Contender for Floor {
    fn name(&self) -> &str {
        &self.name
    }

    fn homes(&self) -> &Path {
        &self.homes
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.daemon.pid()]
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        Ok(())
    }
}
