//! Requests about snapshots, and about homes as archives and copies.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde_json::Value;

use super::commands::{Answer, Commands, done, failed, failure, is_master, limits, master};
use super::control::{Failure, FailureKind, Request, SnapshotInfo, Transferred};
use super::records::NewHome;
use super::{snapshots, transfer};
use crate::archive;
use crate::home::{ErrorKind, Ino};
use crate::view::{Head, OpenHome};

impl Commands {
    /// Does what such a request asks.
    pub(super) async fn keep(
        &self,
        caller: u32,
        request: Request,
        sent: Option<OwnedFd>,
    ) -> Answer {
        match request {
            Request::SnapshotCreate { home, name } => {
                let open = self.open(&home, caller).await?;
                let made = snapshots::create(&open.home, name.clone(), is_master(caller)).await;
                let what = format!("snapshot {} of {home}", name.as_deref().unwrap_or(""));
                done(&SnapshotInfo::new(&home, &made.map_err(|error| failed(&what, &error))?))
            }
            Request::SnapshotList { home } => {
                let open = self.open(&home, caller).await?;
                let all = open.home.snapshots().map_err(|error| failed(&home, &error))?;
                done(&all.iter().map(|s| SnapshotInfo::new(&home, s)).collect::<Vec<_>>())
            }
            Request::SnapshotRemove { home, name } => {
                let open = self.open(&home, caller).await?;
                match open.home.remove_snapshot(&name).await {
                    Ok(()) => Ok(Value::Null),
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound) => {
                        let message = format!("home {home} has no snapshot {name}");
                        Err(failure(FailureKind::NotFound, &message))
                    }
                    Err(error) => Err(failed(&format!("snapshot {name} of {home}"), &error)),
                }
            }
            Request::SnapshotSchedule { home, on } => {
                master(caller)?;
                let head = self.homes.records().set_schedule(&home, on).await;
                let head = head.map_err(|error| failed(&home, &error))?;
                self.table.slot(&head).set_head(head.clone());
                done(&self.info(&head))
            }
            Request::HomeExport { home, snapshot } => {
                // An archive holds what the home's user may not read, too.
                master(caller)?;
                let open = self.open(&home, caller).await?;
                let to = File::from(stream(sent)?);
                let moved = transfer::export(&open.home, snapshot.as_deref(), to).await;
                done(&moved.map_err(|error| transfer_failed(&error))?)
            }
            Request::HomeImport { name, owner, bytes, inodes } => {
                master(caller)?;
                let new = self.new_home(name, owner, bytes, inodes).await?;
                let from = File::from(stream(sent)?);
                let made = transfer::import(&**self.homes.records(), new, from).await;
                self.transferred(made)
            }
            Request::HomeClone { home, snapshot, name, bytes, inodes } => {
                master(caller)?;
                let open = self.open(&home, caller).await?;
                let root = open.home.getattr(Ino::ROOT).await;
                let root = root.map_err(|error| failed(&home, &error))?;
                let owner = Some((root.uid, root.gid));
                let new = self.new_home(name, owner, bytes, inodes).await?;
                let (snapshot, records) = (snapshot.as_deref(), &**self.homes.records());
                self.transferred(transfer::clone(&open.home, snapshot, records, new).await)
            }
            other => {
                let message = format!("the daemon does not know how to do {other:?}");
                Err(failure(FailureKind::Usage, &message))
            }
        }
    }

    async fn open(&self, name: &str, caller: u32) -> Result<Arc<OpenHome>, Failure> {
        let slot = self.slot(name, caller).await?;
        slot.home().await.map_err(|error| failed(name, &error))
    }

    async fn new_home(
        &self,
        name: String,
        owner: Option<(u32, u32)>,
        bytes: Option<u64>,
        inodes: Option<u64>,
    ) -> Result<NewHome, Failure> {
        let unknown = || {
            let message = format!("the system knows no user {name}; --owner USER names the owner");
            failure(FailureKind::NotFound, &message)
        };
        let owner = match owner {
            Some(owner) => owner,
            None => {
                let user = self.homes.user(&name).await;
                user.map_err(|error| failed(&name, &error))?.ok_or_else(unknown)?
            }
        };
        let quota = limits(self.homes.default_quota(), bytes, inodes);
        Ok(NewHome { name, owner, quota })
    }

    fn transferred(&self, made: archive::Result<(Head, archive::Moved)>) -> Answer {
        self.homes.look_again();
        let (head, moved) = made.map_err(|error| transfer_failed(&error))?;
        tracing::info!(home = %head.name, entries = moved.entries, "home made of an archive");
        done(&Transferred { home: self.info(&head), moved })
    }
}

/// The descriptor that an archive goes through.
fn stream(sent: Option<OwnedFd>) -> Result<OwnedFd, Failure> {
    sent.ok_or_else(|| failure(FailureKind::Usage, "no descriptor came with the request"))
}

fn transfer_failed(error: &archive::ArchiveError) -> Failure {
    match error {
        archive::ArchiveError::Home(home, error) if matches!(error.kind(), ErrorKind::NotFound) => {
            failure(FailureKind::NotFound, &format!("home {home} has no such snapshot"))
        }
        archive::ArchiveError::Home(what, error) => failed(what, error),
        other => failure(FailureKind::Failed, &other.to_string()),
    }
}
