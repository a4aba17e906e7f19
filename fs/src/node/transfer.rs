//! Homes as archives, and copies of homes.
//!
//! An export reads a snapshot, one that is made for it where none is named, so that it shows one
//! moment while the home is in use. An import fills a home that nobody sees before it is whole;
//! one that fails leaves nothing, and what the end of the daemon leaves of one is never seen and
//! deleted in time. A clone is an export that an import reads: the new home shares nothing
//! with its origin, whose removal or damage it never notices.

use std::io::{BufReader, BufWriter, PipeReader, PipeWriter, Read, Write};

use tokio::runtime::Handle;

use super::records::{NewHome, Records};
use crate::archive::{self, ArchiveError, Moved};
use crate::home::{Error, ErrorKind, Home, Ino, Origin, Snapshot};
use crate::view::Head;

/// Bytes between the archive and a pipe or a file.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes a home, as it is now or as a snapshot shows it, to `to`.
///
/// # Errors
/// See [`archive::export`]; `Home` with `NotFound` where there is no such snapshot.
pub async fn export(
    home: &Home,
    snapshot: Option<&str>,
    to: impl Write + Send + 'static,
) -> archive::Result<Moved> {
    let failed = |error| ArchiveError::Home(home.name().to_owned(), error);
    if let Some(name) = snapshot {
        return export_snapshot(home.snapshot(name).map_err(failed)?, to).await;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.as_nanos());
    let name = format!("export-{}-{nanos}", std::process::id());
    let made = home.make_snapshot(&name, Origin::Export).await.map_err(failed)?;
    let snapshot = home.snapshot_of(made.txn).map_err(failed)?;
    let done = export_snapshot(snapshot, to).await;
    let removed = home.remove_snapshot(&name).await;
    let done = done?;
    removed.map_err(failed)?;
    Ok(done)
}

async fn export_snapshot(
    snapshot: Snapshot,
    to: impl Write + Send + 'static,
) -> archive::Result<Moved> {
    blocking(move |runtime| {
        let to = BufWriter::with_capacity(BUFFER_BYTES, to);
        archive::export(runtime, &snapshot, to, &mut |_| {})
    })
    .await
}

/// Runs what blocks off the threads that serve requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Handle) -> archive::Result<T> + Send + 'static,
) -> archive::Result<T> {
    let runtime = Handle::current();
    let done = tokio::task::spawn_blocking(move || work(&runtime)).await;
    done.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))
}

/// Makes a home of an archive. One that fails leaves no home.
///
/// # Errors
/// See [`archive::import`]; `Home` with `Exists` where there is one of that name.
pub async fn import(
    records: &dyn Records,
    new: NewHome,
    from: impl Read + Send + 'static,
) -> archive::Result<(Head, Moved)> {
    let name = new.name.clone();
    let failed = |error: Error| ArchiveError::Home(name.clone(), error);
    let (head, home) = records.begin(new).await.map_err(failed)?;
    let filled = fill(records, &head, home, from).await;
    match filled {
        Ok(filled) => Ok(filled),
        Err(error) => {
            if let Err(error) = records.discard(&name).await {
                tracing::warn!(home = name, %error, "a home that was not filled whole stays");
            }
            Err(error)
        }
    }
}

async fn fill(
    records: &dyn Records,
    head: &Head,
    home: Home,
    from: impl Read + Send + 'static,
) -> archive::Result<(Head, Moved)> {
    let failed = |error: Error| ArchiveError::Home(head.name.to_string(), error);
    let filled = home.clone();
    let moved = blocking(move |runtime| {
        let from = BufReader::with_capacity(BUFFER_BYTES, from);
        archive::import(runtime, &filled, from, &mut |_| {})
    })
    .await;
    let root = home.getattr(Ino::ROOT).await;
    let xattrs = home.listxattr(Ino::ROOT).await.map_or(true, |list| !list.is_empty());
    let usage = home.usage();
    let closed = home.close().await;
    let moved = moved?;
    closed.map_err(failed)?;
    let noted = Head { root_xattrs: xattrs, ..head.clone() };
    let head = records.filled(&noted, root.map_err(failed)?, usage).await.map_err(failed)?;
    Ok((head, moved))
}

/// Makes a home like `home`, as it is now or as a snapshot shows it.
///
/// # Errors
/// As for [`export`] and [`import`].
pub async fn clone(
    home: &Home,
    snapshot: Option<&str>,
    records: &dyn Records,
    new: NewHome,
) -> archive::Result<(Head, Moved)> {
    let (from, to): (PipeReader, PipeWriter) = std::io::pipe()?;
    let (exported, imported) = tokio::join!(export(home, snapshot, to), import(records, new, from));
    match (exported, imported) {
        (Ok(_), imported) => imported,
        // An import that ends early breaks the pipe: its reason is the reason.
        (Err(ArchiveError::Io(_)), Err(error)) => Err(error),
        (Err(error), imported) => {
            if let Ok((head, _)) = imported {
                drop(records.discard(&head.name).await);
            }
            Err(error)
        }
    }
}

/// What an error of a transfer is about, where a home says so.
#[must_use]
pub fn kind(error: &ArchiveError) -> Option<&ErrorKind> {
    match error {
        ArchiveError::Home(_, error) => Some(error.kind()),
        ArchiveError::Io(_) | ArchiveError::Invalid(..) => None,
    }
}
