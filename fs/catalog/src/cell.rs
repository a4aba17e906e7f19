//! Cells: heads with one value, some with bytes behind it.
//!
//! The content is a line of JSON and, after it, bytes as they are. The line carries the id of
//! the write that made it; so a swap whose answer was lost is told from one that somebody else
//! won. `FORMAT.md` draws the values.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::ObjectStore;
use object_store::path::Path;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use yadokari_store::head::{HEAD_BYTES_MAX, HeadError, HeadVersion};
use yadokari_store::head::{create_head, find_head, swap_head, write_head_lazily};

use crate::error::{CatalogError, Result};
use crate::log::Writer;

const VERSION: u32 = 1;
const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(500);

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    write: String,
    value: T,
}

/// A cell as it was read or written.
#[derive(Clone, Debug)]
pub(crate) struct Cell<T> {
    pub(crate) value: T,
    /// What follows the value.
    pub(crate) bytes: Bytes,
    write: String,
    version: HeadVersion,
}

/// What becomes of a cell.
#[derive(Debug)]
pub(crate) enum Next<T> {
    /// It stays.
    Keep,
    /// It is swapped for this.
    Swap(T, Bytes),
}

/// How a swap of a cell in a certain state went.
#[derive(Debug)]
pub(crate) enum Swapped<T> {
    Done(Cell<T>),
    /// Somebody else changed it; this is what is there now.
    Lost(Option<Cell<T>>),
}

/// Reads a cell; None if there is none.
pub(crate) async fn read<T: DeserializeOwned>(
    meta: &dyn ObjectStore,
    path: &Path,
) -> Result<Option<Cell<T>>> {
    let head = find_head(meta, path).await.map_err(|e| CatalogError::head("reading", e))?;
    let Some(head) = head else {
        return Ok(None);
    };
    let corrupt = |why: String| CatalogError::corrupt(path, why);
    let end = head.data.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| corrupt("it has no first line".to_owned()))?;
    let envelope: Envelope<serde_json::Value> =
        serde_json::from_slice(&head.data[..end]).map_err(|e| corrupt(e.to_string()))?;
    if envelope.version != VERSION {
        return Err(corrupt(format!("version {} is not known here", envelope.version)));
    }
    let value = serde_json::from_value(envelope.value).map_err(|e| corrupt(e.to_string()))?;
    let bytes = head.data.slice(end + 1..);
    Ok(Some(Cell { value, bytes, write: envelope.write, version: head.version }))
}

/// Swaps a cell that was read (or was not there) for another value. Tries again while nobody
/// knows whether it happened.
pub(crate) async fn swap<T>(
    meta: &dyn ObjectStore,
    writer: &Writer,
    path: &Path,
    known: Option<&Cell<T>>,
    value: T,
    bytes: Bytes,
) -> Result<Swapped<T>>
where
    T: Serialize + DeserializeOwned + Clone,
{
    swap_or_lose(meta, writer, path, known, (value, bytes), false).await
}

/// The same for a value that a machine which loses power may lose: then the one before it is
/// there again, or none.
pub(crate) async fn swap_lazily<T>(
    meta: &dyn ObjectStore,
    writer: &Writer,
    path: &Path,
    known: Option<&Cell<T>>,
    value: T,
    bytes: Bytes,
) -> Result<Swapped<T>>
where
    T: Serialize + DeserializeOwned + Clone,
{
    swap_or_lose(meta, writer, path, known, (value, bytes), true).await
}

async fn swap_or_lose<T>(
    meta: &dyn ObjectStore,
    writer: &Writer,
    path: &Path,
    known: Option<&Cell<T>>,
    (value, bytes): (T, Bytes),
    lazily: bool,
) -> Result<Swapped<T>>
where
    T: Serialize + DeserializeOwned + Clone,
{
    let (write, data) = encode(writer, &value, &bytes)?;
    let start = tokio::time::Instant::now();
    let mut pause = PAUSE_FIRST;
    loop {
        let put = async {
            match known.map(|known| &known.version) {
                version if lazily => write_head_lazily(meta, path, version, &data).await,
                None => create_head(meta, path, &data).await,
                Some(version) => swap_head(meta, path, version, &data).await,
            }
        };
        let error = match tokio::time::timeout(writer.request_time, put).await {
            Ok(Ok(version)) => {
                return Ok(Swapped::Done(Cell { value, bytes, write, version }));
            }
            Ok(Err(HeadError::Conflict(_) | HeadError::Exists(_) | HeadError::NotFound(_))) => None,
            Ok(Err(error)) => Some(CatalogError::head("changing", error)),
            Err(_elapsed) => Some(CatalogError::busy("changing", path)),
        };
        let error = match error {
            Some(error) if !matches!(error, CatalogError::Unavailable { .. }) => return Err(error),
            error => error,
        };
        // An earlier try of this very swap may have won.
        let error = match bounded(writer, path, read::<T>(meta, path)).await {
            Ok(Some(now)) if now.write == write => return Ok(Swapped::Done(now)),
            Ok(now) => {
                let is_unchanged = match (&now, known) {
                    (None, None) => true,
                    (Some(now), Some(known)) => now.write == known.write,
                    _ => false,
                };
                match error {
                    Some(error) if is_unchanged => error,
                    _ => return Ok(Swapped::Lost(now)),
                }
            }
            Err(error @ CatalogError::Unavailable { .. }) => error,
            Err(error) => return Err(error),
        };
        if start.elapsed() + pause >= writer.retry_time {
            return Err(error);
        }
        tokio::time::sleep(writer.shorten(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Changes a cell. `decide` may run several times, on ever newer values; None when there is
/// none. Gives its answer and what is there then.
pub(crate) async fn update<T, R>(
    meta: &dyn ObjectStore,
    writer: &Writer,
    path: &Path,
    mut decide: impl FnMut(Option<&Cell<T>>) -> Result<(Next<T>, R)>,
) -> Result<(R, Option<Cell<T>>)>
where
    T: Serialize + DeserializeOwned + Clone,
{
    let start = tokio::time::Instant::now();
    let mut pause = PAUSE_FIRST;
    let mut known = read_again(meta, writer, path).await?;
    loop {
        let (next, answer) = decide(known.as_ref())?;
        let (value, bytes) = match next {
            Next::Keep => return Ok((answer, known)),
            Next::Swap(value, bytes) => (value, bytes),
        };
        match swap(meta, writer, path, known.as_ref(), value, bytes).await? {
            Swapped::Done(cell) => return Ok((answer, Some(cell))),
            Swapped::Lost(now) => known = now,
        }
        if start.elapsed() + pause >= writer.retry_time {
            return Err(CatalogError::busy("changing", path));
        }
        tokio::time::sleep(writer.shorten(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Reads a cell, trying again while the store gives no answer.
pub(crate) async fn read_again<T: DeserializeOwned>(
    meta: &dyn ObjectStore,
    writer: &Writer,
    path: &Path,
) -> Result<Option<Cell<T>>> {
    writer.again(|| bounded(writer, path, read(meta, path))).await
}

async fn bounded<T>(
    writer: &Writer,
    path: &Path,
    run: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(writer.request_time, run).await {
        Ok(done) => done,
        Err(_elapsed) => Err(CatalogError::busy("reading", path)),
    }
}

fn encode<T: Serialize + Clone>(
    writer: &Writer,
    value: &T,
    bytes: &Bytes,
) -> Result<(String, Bytes)> {
    let write = writer.id();
    let envelope = Envelope { version: VERSION, write: write.clone(), value: value.clone() };
    let line = serde_json::to_vec(&envelope).expect("these types have text keys alone");
    if line.len() + 1 + bytes.len() > HEAD_BYTES_MAX {
        return Err(CatalogError::Limit { what: "bytes of a head", limit: HEAD_BYTES_MAX as u64 });
    }
    let mut data = BytesMut::with_capacity(line.len() + 1 + bytes.len());
    data.extend_from_slice(&line);
    data.extend_from_slice(b"\n");
    data.extend_from_slice(bytes);
    Ok((write, data.freeze()))
}
