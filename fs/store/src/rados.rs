//! `rados://`: Ceph's object store, through librados' asynchronous C interface.
//!
//! Conditions, data and description of an object travel in one compound operation, so `Create`
//! and `Update` are decided by the OSD. Names are kept in an index beside the objects (`index`
//! has its rules), objects that are too long for the cluster in parts (`format`). No request
//! takes a thread: completions wake the future that waits (`op`). Only this folder calls librados.
//!
//! In a full pool data fails with ENOSPC at once, while metadata and everything that frees space
//! goes through. A request that gets no answer fails as unavailable after the configured time;
//! it may happen later all the same, which is what nonces and versions are for.

mod cluster;
mod confirm;
mod core;
mod delete;
mod exit;
mod ffi;
mod format;
mod get;
mod index;
mod lend;
mod list;
mod names;
mod object;
mod op;
mod put;
mod receive;
mod scan;
mod trouble;
mod upload;

use crate::UseReserve;
use crate::error::StoreError;
use crate::store::{ScanReport, StoreOptions, Usage};
use crate::url::RadosUrl;
use async_trait::async_trait;
use core::Core;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use op::Full;
use std::fmt;
use std::sync::Arc;

const STORE: &str = "rados";
/// Deletes in flight of one stream.
const DELETES_MAX: usize = 64;

/// The two handles, and the pools behind them.
#[derive(Debug, Clone)]
pub(crate) struct RadosStores {
    pub(crate) data: Arc<dyn ObjectStore>,
    pub(crate) meta: Arc<dyn ObjectStore>,
    data_core: Arc<Core>,
    meta_core: Arc<Core>,
}

impl RadosStores {
    pub(crate) async fn open(
        url: &RadosUrl,
        options: &StoreOptions,
    ) -> Result<RadosStores, StoreError> {
        let (data_core, meta_core) = core::open(url, options).await?;
        let store = |core: &Arc<Core>, full| RadosStore { core: Arc::clone(core), full };
        Ok(RadosStores {
            data: Arc::new(store(&data_core, Full::Try)),
            meta: Arc::new(store(&meta_core, Full::Force)),
            data_core,
            meta_core,
        })
    }

    /// Room in the data pool as the monitors reckon it, with replication taken into account.
    pub(crate) async fn usage(&self) -> Result<Usage> {
        let pool = Arc::clone(&self.data_core.pool);
        let ask = move || {
            let link = pool.link();
            let of_pool = link
                .cluster
                .mon_command(r#"{"prefix":"df","format":"json"}"#)
                .ok()
                .and_then(|json| pool_usage(&json, pool.id));
            if let Some(usage) = of_pool {
                return Ok(usage);
            }
            let stat = link.cluster.stat()?;
            let bytes = |kib: u64| kib.saturating_mul(1024);
            Ok(Usage {
                capacity_bytes: bytes(stat.kb),
                used_bytes: bytes(stat.kb_used),
                free_bytes: bytes(stat.kb_avail),
            })
        };
        let asked = tokio::task::spawn_blocking(ask).await;
        let asked = asked.map_err(|source| object_store::Error::JoinError { source })?;
        asked.map_err(|source: std::io::Error| object_store::Error::Generic {
            store: STORE,
            source: source.into(),
        })
    }

    pub(crate) async fn scan(&self, repair: bool) -> Result<ScanReport> {
        let mut report = scan::scan(&self.data_core, repair).await?;
        if !Arc::ptr_eq(&self.data_core, &self.meta_core) {
            let meta = scan::scan(&self.meta_core, repair).await?;
            report.objects += meta.objects;
            report.strays += meta.strays;
            report.stale_entries += meta.stale_entries;
            report.orphan_parts += meta.orphan_parts;
            report.orphan_bytes += meta.orphan_bytes;
        }
        Ok(report)
    }
}

/// The pool's numbers in the answer to `df`.
fn pool_usage(json: &[u8], id: i64) -> Option<Usage> {
    let answer: serde_json::Value = serde_json::from_slice(json).ok()?;
    let pools = answer.get("pools")?.as_array()?;
    let pool = pools.iter().find(|pool| pool.get("id").and_then(|id| id.as_i64()) == Some(id))?;
    let number = |name: &str| pool.get("stats")?.get(name)?.as_u64();
    let (used_bytes, free_bytes) = (number("stored")?, number("max_avail")?);
    let capacity_bytes = used_bytes.saturating_add(free_bytes);
    Some(Usage { capacity_bytes, used_bytes, free_bytes })
}

/// One handle on a pool.
#[derive(Debug, Clone)]
struct RadosStore {
    core: Arc<Core>,
    full: Full,
}

#[async_trait]
impl ObjectStore for RadosStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let PutOptions { mode, attributes, .. } = &opts;
        let full = if UseReserve::is_in(&opts) { Full::Force } else { self.full };
        put::put(&self.core, full, location, payload, mode, attributes).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let (core, path) = (Arc::clone(&self.core), location.clone());
        Ok(Box::new(upload::RadosUpload::begin(core, self.full, path, opts.attributes)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        get::get(&self.core, location, &options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let core = Arc::clone(&self.core);
        locations
            .map(move |location| {
                let core = Arc::clone(&core);
                async move {
                    let location = location?;
                    delete::delete(&core, &location).await?;
                    Ok(location)
                }
            })
            .buffered(DELETES_MAX)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        list::list(&self.core, prefix.unwrap_or(&Path::ROOT), &Path::ROOT)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        list::list(&self.core, prefix.unwrap_or(&Path::ROOT), offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        list::list_with_delimiter(&self.core, prefix.unwrap_or(&Path::ROOT)).await
    }

    /// Through this client: librados' C interface has no copy on the OSDs.
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        let source = get::get(&self.core, from, &GetOptions::default()).await?;
        let attributes = source.attributes.clone();
        put::put_stream(&self.core, self.full, to, source.into_stream(), &mode, &attributes)
            .await?;
        Ok(())
    }
}

impl fmt::Display for RadosStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RadosStore({})", self.core.pool.name)
    }
}

/// Ends the process at once with `code`, without running what C++ registered for the exit:
/// threads of librados may still use it. For the end of `main`, when everything is written.
pub fn leave(code: u8) -> ! {
    use std::io::Write;
    // Nobody is left to tell when standard output is gone.
    let _gone = std::io::stdout().flush();
    // SAFETY: `_exit` takes any number and does not come back.
    unsafe { libc::_exit(i32::from(code)) }
}
