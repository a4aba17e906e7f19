//! JuiceFS, where its program is on the PATH: metadata in Redis, data in a local directory.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use yadokari_tests::{process, wait};

use super::foreign::Foreign;

/// Makes a file system and mounts it; `None` without `juicefs` and `redis-server`.
///
/// # Errors
/// With what they said.
pub fn start(dir: &Path) -> Result<Option<Foreign>> {
    if process::sh("command -v juicefs && command -v redis-server").is_err() {
        return Ok(None);
    }
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let mut redis = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--appendonly", "yes", "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("starting redis-server")?;
    let meta = format!("redis://127.0.0.1:{port}/1");
    if let Err(error) = format(dir, port, &meta) {
        let _ = redis.kill();
        let _ = redis.wait();
        return Err(error);
    }
    let cache = dir.join("cache").display().to_string();
    let words = ["juicefs", "mount", "--no-usage-report", "--enable-xattr", "-o", "allow_other"]
        .into_iter()
        .chain(["--cache-dir", &cache, &meta])
        .map(str::to_owned)
        .collect();
    Foreign::start("juicefs", dir, words, Some(redis)).map(Some)
}

fn format(dir: &Path, port: u16, meta: &str) -> Result<()> {
    wait::until("redis", Duration::from_secs(20), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    })?;
    let bucket = format!("{}/data/", dir.display());
    let mut format = Command::new("juicefs");
    format.args(["format", "--storage", "file", "--bucket", &bucket, meta, "bench"]);
    process::ok(&mut format).map(drop)
}
