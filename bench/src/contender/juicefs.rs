//! JuiceFS, where its program is on the PATH: metadata in Redis, data in a local directory.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use yadokari_tests::{process, wait};

use super::Contender;
use super::daemon::{Daemon, Ready};

/// A mount that is served.
#[derive(Debug)]
pub struct JuiceFs {
    dir: PathBuf,
    homes: PathBuf,
    meta: String,
    redis: Child,
    daemon: Option<Daemon>,
}

impl JuiceFs {
    /// Makes a file system and mounts it; `None` without `juicefs` and `redis-server`.
    ///
    /// # Errors
    /// With what they said.
    pub fn start(dir: &Path) -> Result<Option<Self>> {
        if process::sh("command -v juicefs && command -v redis-server").is_err() {
            return Ok(None);
        }
        let homes = dir.join("homes");
        std::fs::create_dir_all(&homes)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port().to_string();
        let redis = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--appendonly", "yes", "--dir"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting redis-server")?;
        let meta = format!("redis://127.0.0.1:{port}/1");
        let mut this = Self { dir: dir.into(), homes, meta, redis, daemon: None };
        wait::until("redis", Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", port.parse().unwrap_or(0))).ok()
        })?;
        let bucket = format!("{}/data/", dir.display());
        let mut format = Command::new("juicefs");
        format.args(["format", "--storage", "file", "--bucket", &bucket, &this.meta, "bench"]);
        process::ok(&mut format)?;
        this.run()?;
        Ok(Some(this))
    }

    fn run(&mut self) -> Result<()> {
        let mut command = Command::new("juicefs");
        command.args(["mount", "--no-usage-report", "--enable-xattr", "-o", "allow_other"]);
        command.arg("--cache-dir").arg(self.dir.join("cache")).arg(&self.meta).arg(&self.homes);
        let log = self.dir.join("log");
        self.daemon = Some(Daemon::start(command, &self.homes, &log, Ready::Mounted)?);
        Ok(())
    }
}

impl Contender for JuiceFs {
    fn name(&self) -> &str {
        "juicefs"
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

impl Drop for JuiceFs {
    fn drop(&mut self) {
        self.daemon = None;
        let _ = self.redis.kill();
        let _ = self.redis.wait();
    }
}
