//! What each request of a command does, and who may ask for it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::control::{
    Checked, Failure, FailureKind, HomeInfo, HomeStats, HomeTrouble, MountInfo, Progress, Request,
    Status,
};
use super::directory::Homes;
use super::mounts::Mounts;
use crate::fuse::{Access, MountPoint};
use crate::home::fsck::{self, Options};
use crate::home::{Error, ErrorKind, Quota, Usage};
use crate::view::{Directory, Head, Slot, Table};

pub(super) type Answer = Result<Value, Failure>;

/// Runs requests against a daemon.
pub struct Commands {
    /// Its homes by record.
    pub homes: Arc<Homes>,
    /// Its homes as they are served.
    pub table: Arc<Table>,
    /// Its mounts.
    pub mounts: Arc<Mounts>,
    /// Where all homes are shown.
    pub homes_mount: Option<PathBuf>,
    /// When it started, in seconds since 1970.
    pub since: u64,
    /// Told to end the daemon.
    pub stop: Arc<Notify>,
}

impl Commands {
    /// Does what `request` asks, on behalf of user `caller`.
    ///
    /// # Errors
    /// Why not, for the command to show.
    pub async fn run(
        &self,
        caller: u32,
        request: Request,
        sent: Option<OwnedFd>,
        report: &watch::Sender<Option<Progress>>,
    ) -> Answer {
        tracing::debug!(caller, ?request, "a command asks");
        match request {
            Request::Status => self.status(caller),
            Request::Stats => self.stats(caller),
            Request::HomeList => self.home_list(caller).await,
            Request::HomeShow { name } => {
                let head = self.head(&name, caller).await?;
                done(&self.info(&head))
            }
            Request::HomeCreate { name, owner, bytes, inodes } => {
                master(caller)?;
                let limits = limits(Quota::NONE, bytes, inodes);
                let quota = (bytes.is_some() || inodes.is_some()).then_some(limits);
                let head = self.homes.create(&name, owner, quota).await;
                done(&self.info(&head.map_err(|error| failed(&name, &error))?))
            }
            Request::HomeCheck { name, verify_data } => {
                self.check(caller, &name, verify_data, report).await
            }
            Request::HomeSetQuota { name, bytes, inodes } => {
                master(caller)?;
                self.set_quota(&name, bytes, inodes).await
            }
            Request::HomeRemove { name } => {
                master(caller)?;
                self.remove(&name).await
            }
            Request::HomeRestore { name } => {
                master(caller)?;
                let head = self.homes.records().restore(&name).await;
                self.homes.look_again();
                done(&self.info(&head.map_err(|error| failed(&name, &error))?))
            }
            Request::Sync { home } => self.sync(caller, home).await,
            Request::Mount { home, path } => self.mount(caller, &home, path, sent).await,
            Request::Umount { path, lazy } => self.umount(caller, &path, lazy).await,
            Request::Shutdown => {
                master(caller)?;
                self.stop.notify_one();
                Ok(Value::Null)
            }
            other => self.keep(caller, other, sent).await,
        }
    }

    fn status(&self, caller: u32) -> Answer {
        let space = self.homes.space();
        let open = self.table.all().iter().filter(|slot| slot.opened().is_some()).count();
        done(&Status {
            pid: std::process::id(),
            since: self.since,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            homes_mount: self.homes_mount.clone(),
            mounts: self.visible_mounts(caller),
            homes_open: open as u64,
            store_bytes: space.map(|space| space.bytes),
            store_bytes_free: space.map(|space| space.bytes_free),
            trouble: self.homes.trouble(),
            homes_in_trouble: self.homes_in_trouble(caller),
        })
    }

    fn homes_in_trouble(&self, caller: u32) -> Vec<HomeTrouble> {
        let slots = self.table.all().into_iter();
        let visible = slots.filter(|slot| is_master(caller) || slot.head().root.uid == caller);
        let mut troubles: Vec<_> = visible
            .filter_map(|slot| {
                let trouble = slot.trouble()?;
                Some(HomeTrouble { home: slot.name.to_string(), trouble })
            })
            .collect();
        troubles.sort_by(|a, b| a.home.cmp(&b.home));
        troubles
    }

    fn visible_mounts(&self, caller: u32) -> Vec<MountInfo> {
        let mut mounts = self.mounts.list();
        mounts.retain(|mount| is_master(caller) || mount.uid == caller);
        mounts
    }

    fn stats(&self, caller: u32) -> Answer {
        let slots = self.table.all().into_iter();
        let visible = slots.filter(|slot| is_master(caller) || slot.head().root.uid == caller);
        let stats = visible.map(|slot| {
            let open = slot.opened();
            let held = open.as_ref().map(|open| open.home.stats()).unwrap_or_default();
            HomeStats {
                name: slot.name.to_string(),
                open: open.is_some(),
                waiting: slot.gate.running() as u64,
                cached_inodes: held.cached_inodes,
                dirty_bytes: held.dirty_bytes,
                trouble: slot.trouble(),
                counters: slot.counters.now(),
            }
        });
        done(&stats.collect::<Vec<_>>())
    }

    async fn home_list(&self, caller: u32) -> Answer {
        let heads = self.homes.list().await.map_err(|error| failed("the homes", &error))?;
        let visible = heads.iter().filter(|head| is_master(caller) || head.root.uid == caller);
        let mut homes: Vec<_> = visible.map(|head| self.info(head)).collect();
        homes.sort_by(|a, b| a.name.cmp(&b.name));
        done(&homes)
    }

    async fn set_quota(&self, name: &str, bytes: Option<u64>, inodes: Option<u64>) -> Answer {
        let head = self.head(name, 0).await?;
        let slot = self.table.slot(&head);
        let open = slot.opened();
        let usage = open.as_ref().map_or(head.usage, |open| open.home.usage());
        let now = Quota { bytes: usage.bytes_limit, inodes: usage.inodes_limit };
        let quota = limits(now, bytes, inodes);
        if let Some(open) = &open {
            open.home.set_quota(quota);
        }
        let head = self.homes.records().set_quota(name, quota).await;
        let head = head.map_err(|error| failed(name, &error))?;
        slot.set_head(head.clone());
        done(&self.info(&head))
    }

    async fn remove(&self, name: &str) -> Answer {
        let head = self.head(name, 0).await?;
        let slot = self.table.slot(&head);
        slot.retire();
        if let Err(error) = slot.close().await {
            slot.unretire();
            return Err(failed(name, &error));
        }
        let removed = self.homes.records().remove(name).await;
        self.table.remove(head.volume);
        self.mounts.drop_home(&slot);
        removed.map_err(|error| failed(name, &error))?;
        tracing::info!(home = name, "home removed");
        Ok(Value::Null)
    }

    async fn sync(&self, caller: u32, home: Option<String>) -> Answer {
        let slots = match home {
            Some(name) => vec![self.slot(&name, caller).await?],
            None => self.table.all(),
        };
        for slot in slots {
            let Some(open) = slot.opened() else { continue };
            if is_master(caller) || slot.head().root.uid == caller {
                open.home.sync().await.map_err(|error| failed(&slot.name, &error))?;
            }
        }
        Ok(Value::Null)
    }

    async fn check(
        &self,
        caller: u32,
        name: &str,
        verify_data: bool,
        report: &watch::Sender<Option<Progress>>,
    ) -> Answer {
        let slot = self.slot(name, caller).await?;
        let open = slot.home().await.map_err(|error| failed(name, &error))?;
        let options = Options { verify_data, in_use: true };
        let mut progress = |at: fsck::Progress| {
            let what = format!("checking {name}: {}", at.stage);
            report.send_replace(Some(Progress { what, done: at.done, of: None }));
        };
        let checked = open.home.check(options, &mut progress).await;
        let report = checked.map_err(|error| failed(name, &error))?;
        let value = serde_json::to_value(&report)
            .map_err(|error| failure(FailureKind::Failed, &error.to_string()))?;
        let (home, text) = (name.to_owned(), report.to_string());
        done(&Checked { home, clean: report.clean, report: value, text })
    }

    async fn mount(
        &self,
        caller: u32,
        home: &str,
        path: PathBuf,
        directory: Option<OwnedFd>,
    ) -> Answer {
        let slot = self.slot(home, caller).await?;
        let Some(directory) = directory else {
            return Err(failure(FailureKind::Usage, "no directory came with the request"));
        };
        let path = mount_path(caller, &path, &directory)?;
        let gid = rustix::fs::fstat(&directory).map_or(0, |stat| stat.st_gid);
        let access = if caller == 0 { Access::All } else { Access::Only(caller, gid) };
        let point = MountPoint::from_fd(directory, path);
        let shown = self.mounts.show_one(point, access, slot).await;
        let path = shown.map_err(|error| failure(FailureKind::Failed, &error.to_string()))?;
        done(&path)
    }

    async fn umount(&self, caller: u32, path: &Path, lazy: bool) -> Answer {
        let mounts = self.visible_mounts(caller);
        if !mounts.iter().any(|mount| mount.path == path) {
            let what = format!("{} is no mount of yours that this daemon made", path.display());
            return Err(failure(FailureKind::NotFound, &what));
        }
        match self.mounts.end(path, lazy).await {
            Ok(_) => Ok(Value::Null),
            Err(error) => {
                let what = format!("{}: {error}", path.display());
                Err(failure(FailureKind::Refused, &what))
            }
        }
    }

    /// A home that `caller` may use.
    async fn head(&self, name: &str, caller: u32) -> Result<Head, Failure> {
        let head = self.homes.records().show(name).await.map_err(|error| failed(name, &error))?;
        match head {
            Some(head) if is_master(caller) || head.root.uid == caller => Ok(head),
            _ => Err(failure(FailureKind::NotFound, &format!("there is no home {name}"))),
        }
    }

    pub(super) async fn slot(&self, name: &str, caller: u32) -> Result<Arc<Slot>, Failure> {
        Ok(self.table.slot(&self.head(name, caller).await?))
    }

    pub(super) fn info(&self, head: &Head) -> HomeInfo {
        let open = self.table.by_volume(head.volume).and_then(|slot| slot.opened());
        let usage: Usage = open.as_ref().map_or(head.usage, |open| open.home.usage());
        let limit = |limit: u64| (limit != u64::MAX).then_some(limit);
        let held = open.as_ref().map(|open| open.home.snapshot_use());
        HomeInfo {
            name: head.name.to_string(),
            volume: head.volume,
            uid: head.root.uid,
            gid: head.root.gid,
            bytes: usage.bytes,
            bytes_limit: limit(usage.bytes_limit),
            inodes: usage.inodes,
            inodes_limit: limit(usage.inodes_limit),
            snapshots: held.map_or(head.snapshots, |held| held.count),
            snapshot_bytes: held.map_or(head.snapshot_bytes, |held| held.bytes),
            scheduled: head.scheduled,
            open: open.is_some(),
        }
    }
}

/// Checks that `caller` may mount on `directory`, as `fusermount3` does: it is the caller's own.
/// Gives its path without symbolic links.
fn mount_path(caller: u32, asked: &Path, directory: &OwnedFd) -> Result<PathBuf, Failure> {
    let refused = |what: String| failure(FailureKind::Refused, &what);
    let stat = rustix::fs::fstat(directory.as_fd()).map_err(|error| refused(error.to_string()))?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return Err(refused(format!("{} is not a directory", asked.display())));
    }
    if caller != 0 && (stat.st_uid != caller || stat.st_mode & 0o200 == 0) {
        return Err(refused(format!("{} is not a directory of yours", asked.display())));
    }
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    std::fs::read_link(link).map_err(|error| refused(error.to_string()))
}

pub(super) fn is_master(caller: u32) -> bool {
    caller == 0 || caller == rustix::process::geteuid().as_raw()
}

pub(super) fn master(caller: u32) -> Result<(), Failure> {
    match is_master(caller) {
        true => Ok(()),
        false => Err(failure(FailureKind::Refused, "only the administrator may do this")),
    }
}

pub(super) fn limits(now: Quota, bytes: Option<u64>, inodes: Option<u64>) -> Quota {
    Quota { bytes: bytes.unwrap_or(now.bytes), inodes: inodes.unwrap_or(now.inodes) }
}

pub(super) fn done(value: &impl Serialize) -> Answer {
    serde_json::to_value(value).map_err(|error| failure(FailureKind::Failed, &error.to_string()))
}

pub(super) fn failure(kind: FailureKind, message: &str) -> Failure {
    Failure { kind, message: message.to_owned() }
}

/// What an error of a home or a store means to whoever gave the command.
pub(super) fn failed(what: &str, error: &Error) -> Failure {
    let kind = match error.kind() {
        ErrorKind::NotFound => FailureKind::NotFound,
        ErrorKind::Exists
        | ErrorKind::NotPermitted
        | ErrorKind::Fenced
        | ErrorKind::OwnedElsewhere(_)
        | ErrorKind::Newer(_)
        | ErrorKind::TooManySnapshots(_)
        | ErrorKind::NoSpace => FailureKind::Refused,
        ErrorKind::Invalid | ErrorKind::NameTooLong => FailureKind::Usage,
        _ => FailureKind::Failed,
    };
    match error.kind() {
        ErrorKind::OwnedElsewhere(sentence) => failure(kind, sentence),
        _ => failure(kind, &format!("{what}: {error}")),
    }
}
