//! A file system of others that one program serves at a directory.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result};

use super::Contender;
use super::daemon::{Daemon, Ready};

/// A mount that is served.
#[derive(Debug)]
pub struct Foreign {
    name: &'static str,
    homes: PathBuf,
    log: PathBuf,
    /// Program and arguments that serve it in the foreground.
    words: Vec<String>,
    daemon: Option<Daemon>,
    /// A server that it needs.
    beside: Option<Child>,
}

impl Foreign {
    /// Starts `words` followed by the directory where homes are then. `beside` is stopped with it.
    ///
    /// # Errors
    /// With what the program said.
    pub fn start(
        name: &'static str,
        dir: &Path,
        words: Vec<String>,
        beside: Option<Child>,
    ) -> Result<Self> {
        let (homes, log) = (dir.join("homes"), dir.join("log"));
        std::fs::create_dir_all(&homes)?;
        let mut this = Self { name, homes, log, words, daemon: None, beside };
        this.run()?;
        Ok(this)
    }

    fn run(&mut self) -> Result<()> {
        let (program, arguments) = self.words.split_first().context("a program")?;
        let mut command = Command::new(program);
        command.args(arguments).arg(&self.homes);
        self.daemon = Some(Daemon::start(command, &self.homes, &self.log, Ready::Mounted)?);
        Ok(())
    }
}

impl Contender for Foreign {
    fn name(&self) -> &str {
        self.name
    }

    fn homes(&self) -> &Path {
        &self.homes
    }

    fn pids(&self) -> Vec<u32> {
        self.daemon.iter().map(Daemon::pid).collect()
    }

    fn settle(&mut self) -> Result<()> {
        let dir = std::fs::File::open(&self.homes)?;
        rustix::fs::syncfs(&dir).context("syncfs")
    }

    fn restart(&mut self) -> Result<()> {
        self.daemon.take().context("the daemon runs")?.stop(true)?;
        self.run()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.daemon = None;
        if let Some(mut beside) = self.beside.take() {
            let _ = beside.kill();
            let _ = beside.wait();
        }
    }
}
