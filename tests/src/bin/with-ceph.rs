//! `with-ceph COMMAND…`: starts a cluster, runs a command that finds it in the environment, ends
//! the cluster, and exits as the command did. So that a whole test run needs one cluster.

use anyhow::{Context, Result};
use std::process::{Command, ExitCode};
use yadokari_tests::ceph::{CONF_ENV, Ceph};

fn main() -> Result<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let program = args.next().context("usage: with-ceph COMMAND [ARGUMENT]…")?;
    let ceph = Ceph::start()?;
    let mut command = Command::new(&program);
    command.args(args).env(CONF_ENV, ceph.conf());
    let status = command.status().with_context(|| format!("running {}", program.display()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
