//! Opening a store: from a URL to the two handles that everything else works on.
//!
//! `data` takes what is large and written once (segments, blobs); `meta` takes logs, tables, heads
//! and whatever deletes need. With a RADOS pool for each they are two stores, so a caller reads an
//! object through the handle it was written by. Elsewhere both lead to the same objects, and
//! differ in what happens when the medium is full: `data` fails while `meta` still has room.

use crate::error::StoreError;
use crate::file::FileStore;
use crate::retry::RetryPolicy;
#[cfg(any(feature = "rados", feature = "s3"))]
use crate::retry::RetryStore;
use crate::url::StoreUrl;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use std::sync::Arc;
use std::time::Duration;

/// What a caller may choose about opening a store; the default suits a daemon.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Limit for the whole of `open`. A `timeout` in the URL that is shorter counts too.
    pub open_timeout: Duration,
    /// Limit for one request to a remote medium; it then fails as unavailable.
    pub request_timeout: Duration,
    /// Retries of transient failures on remote media; None leaves them to the caller.
    pub retry: Option<RetryPolicy>,
    /// What `file://` keeps for metadata on a full disk; None is the default, 0 nothing.
    pub reserve_bytes: Option<u64>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            open_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            retry: Some(RetryPolicy::default()),
            reserve_bytes: None,
        }
    }
}

/// Room on the medium behind a store, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub capacity_bytes: u64,
    /// By anybody, where the medium is shared.
    pub used_bytes: u64,
    /// What can still be written, after replication where the medium tells.
    pub free_bytes: u64,
}

/// The two handles of an open store. Clones share it; the last one closes it.
#[derive(Debug, Clone)]
pub struct Store {
    pub data: Arc<dyn ObjectStore>,
    pub meta: Arc<dyn ObjectStore>,
    backing: Backing,
}

/// Which of the two handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Data,
    Meta,
}

/// The medium itself, for questions that `ObjectStore` has no words for.
#[derive(Debug, Clone)]
enum Backing {
    Unknown,
    File(FileStore),
    #[cfg(feature = "rados")]
    Rados(crate::rados::RadosStores),
}

impl Store {
    /// Opens a store, or says within `options.open_timeout` why not.
    pub async fn open(url: &StoreUrl, options: &StoreOptions) -> Result<Store, StoreError> {
        let open = Store::open_unbounded(url, options);
        match tokio::time::timeout(options.open_timeout, open).await {
            Ok(store) => store,
            Err(_elapsed) => Err(StoreError::Unreachable {
                what: url.to_string(),
                waited: options.open_timeout,
                remedy: "check that the medium is up and reachable from here".to_owned(),
            }),
        }
    }

    async fn open_unbounded(url: &StoreUrl, options: &StoreOptions) -> Result<Store, StoreError> {
        match url {
            StoreUrl::Memory => Ok(Store::memory()),
            StoreUrl::File(path) => {
                let (path, reserve_bytes) = (path.clone(), options.reserve_bytes);
                let open = move || FileStore::open(&path, reserve_bytes);
                let opened = tokio::task::spawn_blocking(open).await;
                let store = opened.map_err(|source| StoreError::Failed {
                    operation: "opening",
                    what: url.to_string(),
                    source: source.into(),
                })??;
                let (data, meta) = (Arc::new(store.clone()), Arc::new(store.for_meta()));
                Ok(Store { data, meta, backing: Backing::File(store) })
            }
            #[cfg(feature = "rados")]
            StoreUrl::Rados(rados) => {
                let stores = crate::rados::RadosStores::open(rados, options).await?;
                let backing = Backing::Rados(stores.clone());
                let store = Store { data: stores.data, meta: stores.meta, backing };
                Ok(store.with_retry(options.retry.as_ref()))
            }
            #[cfg(not(feature = "rados"))]
            StoreUrl::Rados(_) => Err(StoreError::NotBuilt { scheme: "rados", feature: "rados" }),
            #[cfg(feature = "s3")]
            StoreUrl::S3(s3) => {
                let store = crate::s3::open(s3, options)?;
                Ok(Store::from_one(store).with_retry(options.retry.as_ref()))
            }
            #[cfg(not(feature = "s3"))]
            StoreUrl::S3(_) => Err(StoreError::NotBuilt { scheme: "s3", feature: "s3" }),
        }
    }

    /// A store that is gone with its last handle, for tests.
    pub fn memory() -> Store {
        Store::from_one(Arc::new(InMemory::new()))
    }

    /// Any object store, as data and meta at once.
    pub fn from_one(store: Arc<dyn ObjectStore>) -> Store {
        Store::from_parts(Arc::clone(&store), store)
    }

    pub fn from_parts(data: Arc<dyn ObjectStore>, meta: Arc<dyn ObjectStore>) -> Store {
        Store { data, meta, backing: Backing::Unknown }
    }

    /// The same medium behind wrappers, put around each handle.
    pub fn wrap(
        self,
        mut wrap: impl FnMut(Role, Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>,
    ) -> Store {
        Store {
            data: wrap(Role::Data, self.data),
            meta: wrap(Role::Meta, self.meta),
            backing: self.backing,
        }
    }

    /// The part of the store below a prefix, which becomes its root.
    pub fn with_prefix(&self, prefix: &Path) -> Store {
        let prefix = prefix.clone();
        self.clone().wrap(|_, inner| Arc::new(PrefixStore::new(inner, prefix.clone())))
    }

    #[cfg(any(feature = "rados", feature = "s3"))]
    fn with_retry(self, policy: Option<&RetryPolicy>) -> Store {
        match policy {
            None => self,
            Some(policy) => self.wrap(|_, inner| Arc::new(RetryStore::new(inner, policy.clone()))),
        }
    }

    /// For a clean end: what the medium keeps for a quick acknowledgement is put where it
    /// belongs. An end without it costs the next opening that work, and nothing else.
    ///
    /// # Errors
    /// What the medium says.
    pub async fn settle(&self) -> Result<(), StoreError> {
        let Backing::File(file) = &self.backing else { return Ok(()) };
        file.settle().await.map_err(|source| StoreError::Failed {
            operation: "settling",
            what: self.data.to_string(),
            source: source.into(),
        })
    }

    /// Room on the medium of the data handle, where it can be known.
    pub async fn usage(&self) -> Result<Option<Usage>, StoreError> {
        let usage = match &self.backing {
            Backing::Unknown => return Ok(None),
            Backing::File(file) => file.usage().await,
            #[cfg(feature = "rados")]
            Backing::Rados(stores) => stores.usage().await,
        };
        usage.map(Some).map_err(|source| StoreError::Failed {
            operation: "asking for the free space",
            what: self.data.to_string(),
            source: source.into(),
        })
    }

    /// Compares what the medium holds with what the store's indexes say, and with `repair` puts
    /// right what differs. None where a store has no index of its own. Reads every object's name.
    pub async fn scan(&self, repair: bool) -> Result<Option<crate::ScanReport>, StoreError> {
        match &self.backing {
            Backing::Unknown | Backing::File(_) => {
                let _nothing_to_repair = repair;
                Ok(None)
            }
            #[cfg(feature = "rados")]
            Backing::Rados(stores) => {
                stores.scan(repair).await.map(Some).map_err(|source| StoreError::Failed {
                    operation: "scanning",
                    what: self.data.to_string(),
                    source: source.into(),
                })
            }
        }
    }
}

/// What a scan found; with `repair` also what was put right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Whole objects, in both pools.
    pub objects: u64,
    /// Objects that no index named: left by a crash before their put was acknowledged.
    pub strays: u64,
    /// Index entries without an object.
    pub stale_entries: u64,
    /// Parts of large objects that no object names.
    pub orphan_parts: u64,
    pub orphan_bytes: u64,
}
