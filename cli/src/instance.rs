//! The instance behind a data directory: asked over its socket when it runs, and otherwise
//! looked up in its store, which a few commands can do as well.

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use yadokari_fs::node::StoreRecords;
use yadokari_fs::node::client::{Client, ClientError};
use yadokari_fs::node::control::{FailureKind, HomeInfo, Request, Status};

use crate::config::{MACHINE_DATA, Settings};
use crate::exit::Failure;
use crate::output::Progress;

/// The settings of the instance that a command means. Who named none and never had one of their
/// own means the machine's, where that runs.
pub fn meant(mut settings: Settings, named: bool) -> Settings {
    let machine = Path::new(MACHINE_DATA);
    if !named && !settings.data.exists() && Client::connect(machine).is_ok() {
        settings.data = machine.to_owned();
    }
    settings
}

/// The process that serves the data directory, if one does.
pub fn holder(settings: &Settings) -> Option<u32> {
    let mut client = Client::connect(&settings.data).ok()?;
    client.request::<Status>(&Request::Status).ok().map(|status| status.pid)
}

/// Connects; `None` when nothing runs there.
///
/// # Errors
/// When something runs that cannot be talked to.
pub fn connect(settings: &Settings) -> anyhow::Result<Option<Client>> {
    match Client::connect(&settings.data) {
        Ok(client) => Ok(Some(client)),
        Err(ClientError::NotRunning(_)) => Ok(None),
        Err(error) => Err(translate(error, &settings.data).into()),
    }
}

/// Connects, or says how to start it.
///
/// # Errors
/// `NotFound` when nothing runs there.
pub fn require(settings: &Settings) -> anyhow::Result<Client> {
    let client = connect(settings)?;
    Ok(client
        .ok_or_else(|| translate(ClientError::NotRunning(settings.data.clone()), &settings.data))?)
}

/// Asks and waits, with the daemon's progress on standard error.
///
/// # Errors
/// The daemon's reason, with its exit code.
pub fn ask<T: DeserializeOwned>(
    client: &mut Client,
    settings: &Settings,
    request: &Request,
) -> anyhow::Result<T> {
    let mut shown: Option<Progress> = None;
    let answer = client.request_with(request, None, |progress| {
        let state = match progress.of {
            Some(of) => format!("{} of {of}", progress.done),
            None => progress.done.to_string(),
        };
        let shown = shown.get_or_insert_with(|| Progress::new(""));
        shown.turn_to(progress.what);
        shown.at(&state);
    });
    Ok(answer.map_err(|error| translate(error, &settings.data))?)
}

/// The words and the exit code of an error of the connection.
pub fn translate(error: ClientError, data: &Path) -> Failure {
    match error {
        ClientError::NotRunning(_) => {
            Failure::not_found(format!("no instance runs on {}", data.display())).remedy(format!(
                "start one:      yadokari up --data {0}\n\
                 or name it:     --data DIR or YADOKARI_DATA=DIR",
                data.display()
            ))
        }
        ClientError::Failed(failure) => {
            let message = failure.message;
            match failure.kind {
                FailureKind::Usage => Failure::usage(message),
                FailureKind::NotFound => Failure::not_found(message),
                FailureKind::Refused => Failure::refused(message),
                FailureKind::Failed => Failure::failed(message),
            }
        }
        ClientError::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let data = data.display();
            Failure::refused(format!("the instance on {data} may not be asked by you"))
                .remedy("as its administrator: sudo yadokari …, or name your own with --data DIR")
        }
        error @ ClientError::Io(_) => Failure::failed(error.to_string()),
    }
}

/// A home as a command shows it, from the store's record alone.
pub fn info(head: &yadokari_fs::view::Head) -> HomeInfo {
    let limit = |limit: u64| (limit != u64::MAX).then_some(limit);
    HomeInfo {
        name: head.name.to_string(),
        volume: head.volume,
        uid: head.root.uid,
        gid: head.root.gid,
        bytes: head.usage.bytes,
        bytes_limit: limit(head.usage.bytes_limit),
        inodes: head.usage.inodes,
        inodes_limit: limit(head.usage.inodes_limit),
        snapshots: head.snapshots,
        snapshot_bytes: head.snapshot_bytes,
        scheduled: head.scheduled,
        open: false,
    }
}

/// The records of a store that no daemon of this instance serves.
///
/// # Errors
/// `NotFound` where nothing was ever kept; when the store does not open.
pub async fn records(settings: &Settings) -> anyhow::Result<Arc<StoreRecords>> {
    let settings = settings.with_last_store();
    // A look must not make a store.
    if settings.store.is_none() && !settings.embedded_store().exists() {
        let data = &settings.data;
        return Err(translate(ClientError::NotRunning(data.clone()), data).into());
    }
    crate::serve::open_records(&settings, false).await
}

/// Like [`records`]; an embedded store is made where there is none.
///
/// # Errors
/// When the store does not open.
pub async fn records_or_new(settings: &Settings) -> anyhow::Result<Arc<StoreRecords>> {
    crate::serve::open_records(&settings.with_last_store(), false).await
}
