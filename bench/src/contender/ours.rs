//! Yadokari itself, as a user starts it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use yadokari_fs::view::Form;
use yadokari_tests::process;
use yadokari_tests::user::User;

use super::Contender;
use super::daemon::{Daemon, Ready};

/// A running daemon.
#[derive(Debug)]
pub struct Ours {
    name: String,
    dir: PathBuf,
    homes: PathBuf,
    store: String,
    form: Form,
    daemon: Option<Daemon>,
}

impl Ours {
    /// Starts `up`, or `node` for the shared form.
    ///
    /// # Errors
    /// With what it said.
    pub fn start(name: &str, dir: &Path, store: String, form: Form) -> Result<Self> {
        let homes = dir.join("homes");
        std::fs::create_dir_all(&homes)?;
        let (name, dir) = (name.to_owned(), dir.to_owned());
        let mut ours = Self { name, dir, homes, store, form, daemon: None };
        ours.run()?;
        Ok(ours)
    }

    fn run(&mut self) -> Result<()> {
        let mut command = self.command();
        match self.form {
            Form::Local => {
                command.args(["up", "--listen", "none", "--store", &self.store]);
                command.arg("--home").arg(&self.homes);
            }
            Form::Shared => {
                let config = self.dir.join("node.toml");
                let (store, homes) = (&self.store, self.homes.display());
                let text = format!("store = \"{store}\"\n[home]\nmount = \"{homes}\"\n");
                std::fs::write(&config, text)?;
                command.arg("node").arg("--config").arg(config);
            }
        }
        let log = self.dir.join("log");
        self.daemon = Some(Daemon::start(command, &self.homes, &log, Ready::Line)?);
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program());
        process::without_our_settings(&mut command);
        command.arg("--data").arg(self.dir.join("data"));
        command
    }
}

/// `$YADOKARI_BIN`, else beside this program.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("YADOKARI_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().unwrap_or_default();
    let dir = exe.parent().unwrap_or(Path::new(""));
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    dir.join("yadokari")
}

impl Contender for Ours {
    fn name(&self) -> &str {
        &self.name
    }

    fn homes(&self) -> &Path {
        &self.homes
    }

    fn pids(&self) -> Vec<u32> {
        self.daemon.iter().map(Daemon::pid).collect()
    }

    fn user(&self) -> Result<User> {
        let user = User::create(&self.homes)?;
        process::ok(self.command().args(["home", "create", "--quota", "100G", &user.name]))?;
        Ok(user)
    }

    fn settle(&mut self) -> Result<()> {
        process::ok(self.command().arg("sync")).map(drop)
    }

    fn restart(&mut self) -> Result<()> {
        self.daemon.take().context("the daemon runs")?.stop(false)?;
        self.run()
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            let _killed_instead = daemon.stop(false);
        }
    }
}
