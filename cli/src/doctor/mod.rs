//! `yadokari doctor`: is this machine ready, and what to do about each thing that is not.
//!
//! Every check looks and changes nothing, ends within a bounded time, and gives one finding with
//! its remedy. Checks do not depend on each other, so that one broken part hides no other.

mod containers;
mod fuse;
mod machine;
mod overlay;
mod store;
mod users;

use std::path::PathBuf;

use serde::Serialize;

pub use self::machine::KERNEL_FOR_NATIVE_OVERLAY;
use crate::config::Settings;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Ready.
    Ok,
    /// Works, but not as well as it could, or not for everybody.
    Warn,
    /// Does not work.
    Fail,
}

/// What one check found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Stable name of the check.
    pub check: &'static str,
    /// How it ended.
    pub result: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do, unless it is ok.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, result: Verdict::Ok, detail: detail.into(), remedy: None }
    }

    fn warn(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (detail, remedy) = (detail.into(), Some(remedy.into()));
        Self { check, result: Verdict::Warn, detail, remedy }
    }

    fn fail(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (detail, remedy) = (detail.into(), Some(remedy.into()));
        Self { check, result: Verdict::Fail, detail, remedy }
    }
}

/// All findings; the shape of `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// No check failed.
    pub ready: bool,
    /// In a fixed order.
    pub checks: Vec<Finding>,
}

/// For whom and about what is asked.
pub struct Subject {
    /// The settings of the instance.
    pub settings: Settings,
    /// User id of the caller.
    pub uid: u32,
    /// Name of the caller, if the system knows one.
    pub user: Option<String>,
    /// `$HOME`.
    pub home: PathBuf,
}

impl Subject {
    /// The caller.
    pub fn caller(settings: Settings) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        Self { settings, uid, user: crate::users::name_of(uid), home }
    }

    /// Checks of root look at the machine for all users.
    fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// Runs every check.
pub async fn examine(subject: &Subject) -> Report {
    let mut checks = vec![
        machine::kernel(),
        machine::clock(),
        machine::open_files(),
        machine::data_directory(subject),
        fuse::device(subject),
        fuse::fusermount(subject),
        fuse::allow_other(subject),
        fuse::propagation(),
        users::subordinate_ids(subject),
        users::id_mapping(),
        containers::podman(subject),
        containers::driver(subject),
        containers::runtime(subject),
        containers::network(),
        overlay::native(subject),
    ];
    checks.push(store::reachable(subject).await);
    let ready = checks.iter().all(|finding| finding.result != Verdict::Fail);
    Report { ready, checks }
}

/// The report for people.
pub fn show(report: &Report) -> String {
    let mut out = String::new();
    let width = report.checks.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    for finding in &report.checks {
        let verdict = match finding.result {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        out.push_str(&format!("{verdict}  {:width$}  {}\n", finding.check, finding.detail));
        for line in finding.remedy.iter().flat_map(|remedy| remedy.lines()) {
            out.push_str(&format!("      {:width$}  -> {line}\n", ""));
        }
    }
    let count = |verdict| report.checks.iter().filter(|f| f.result == verdict).count();
    let (warned, failed) = (count(Verdict::Warn), count(Verdict::Fail));
    let summary = if report.ready { "This machine is ready" } else { "This machine is not ready" };
    out.push_str(&format!("\n{summary}: {failed} failed, {warned} warnings.\n"));
    out
}
