//! What the two handles on a pool share, and the way in: connect, check, start.

use super::cluster::{Connection, Pool};
use super::confirm::Confirmer;
use super::format::{self, LAYOUT, Nonce};
use super::index::Index;
use super::op::{Errno, Full, ReadOp, WriteOp};
use crate::error::StoreError;
use crate::store::StoreOptions;
use crate::url::RadosUrl;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Objects up to this length are one RADOS object; longer ones are cut into parts of it. Well
/// below what clusters allow (osd_max_object_size is 128 MiB by default), and below their limit
/// for one write (90 MB).
const PART_BYTES: u64 = 16 << 20;
/// A cluster that refuses even this has a limit that no store can live with.
const PART_BYTES_MIN: u64 = 64 << 10;

/// One pool as a store: its objects, its index, the work behind it.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) pool: Arc<Pool>,
    pub(super) index: Arc<Index>,
    pub(super) confirmer: Confirmer,
    instance: u64,
    count: AtomicU64,
    part_bytes: AtomicU64,
}

impl Core {
    async fn open(
        pool: Arc<Pool>,
        meta: Arc<Pool>,
        limit: Duration,
    ) -> Result<Arc<Core>, StoreError> {
        check_layout(&meta, pool.id, limit).await?;
        let index = Arc::new(Index::new(meta, pool.id));
        let confirmer = Confirmer::start(Arc::clone(&pool), Arc::clone(&index));
        Ok(Arc::new(Core {
            pool,
            index,
            confirmer,
            instance: rand::random(),
            count: AtomicU64::new(0),
            part_bytes: AtomicU64::new(PART_BYTES),
        }))
    }

    /// A value that no other writer ever has.
    pub(super) fn next_nonce(&self) -> Nonce {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.instance.to_be_bytes());
        nonce[8..].copy_from_slice(&count.to_be_bytes());
        nonce
    }

    pub(super) fn part_bytes(&self) -> u64 {
        self.part_bytes.load(Ordering::Relaxed)
    }

    /// The cluster found an object of this length too large; false when smaller makes no sense.
    pub(super) fn shrink_parts(&self, refused: u64) -> bool {
        let smaller = self.part_bytes().min(refused.max(1)) / 2;
        if smaller < PART_BYTES_MIN {
            return false;
        }
        tracing::debug!(smaller, "the cluster limits objects: cutting them into smaller parts");
        self.part_bytes.fetch_min(smaller, Ordering::Relaxed);
        true
    }
}

/// Connects and opens data and meta pool; with one pool for both, they are one.
pub(super) async fn open(
    url: &RadosUrl,
    options: &StoreOptions,
) -> Result<(Arc<Core>, Arc<Core>), StoreError> {
    let (of_thread, request_timeout) = (url.clone(), options.request_timeout);
    let connect = move || {
        let connection = Connection::new(&of_thread, request_timeout)?;
        let data = connection.pool(&of_thread.pool)?;
        let meta = match &of_thread.meta_pool {
            None => Arc::clone(&data),
            Some(name) => connection.pool(name)?,
        };
        Ok::<_, StoreError>((data, meta))
    };
    let connected = tokio::task::spawn_blocking(connect).await;
    let (data, meta) = connected.map_err(|source| StoreError::Failed {
        operation: "connecting to",
        what: "the Ceph cluster".to_owned(),
        source: source.into(),
    })??;
    let core = Core::open(Arc::clone(&data), Arc::clone(&meta), request_timeout).await?;
    if Arc::ptr_eq(&data, &meta) {
        return Ok((Arc::clone(&core), core));
    }
    Ok((core, Core::open(Arc::clone(&meta), meta, request_timeout).await?))
}

/// Writes down which form the index has, or finds that it has ours.
async fn check_layout(meta: &Arc<Pool>, space: i64, limit: Duration) -> Result<(), StoreError> {
    let name = format::layout_name(space);
    // The omap entry is there to find out now whether the pool can hold any.
    let op = WriteOp::new().create_exclusive().write_full(LAYOUT).omap_set("format", b"1");
    let what = format!("pool `{}`", meta.name);
    let written = match meta.write(&name, op, Full::Force, 0).await {
        Ok(_) => return Ok(()),
        Err(Errno(libc::EEXIST)) => {
            let ask = ReadOp { data: Some((0, 4096)), ..ReadOp::default() };
            meta.read(&name, ask).await
        }
        Err(errno) => Err(errno),
    };
    match written {
        Ok(read) if read.data == LAYOUT => Ok(()),
        Ok(read) => {
            let text = String::from_utf8_lossy(&read.data).trim().to_owned();
            let remedy = format!("it holds `{text}`, which this program does not read");
            Err(StoreError::Invalid { what, remedy })
        }
        Err(Errno(libc::EOPNOTSUPP)) => Err(StoreError::Invalid {
            what,
            remedy: "it is erasure-coded and cannot hold indexes: name a replicated pool with \
                     ?meta_pool=NAME"
                .to_owned(),
        }),
        Err(Errno(libc::EPERM | libc::EACCES)) => Err(StoreError::Denied {
            what,
            remedy: "give the Ceph user `osd 'allow rw pool=NAME'` for it and `mon 'allow r'`"
                .to_owned(),
        }),
        Err(Errno(libc::ETIMEDOUT)) => Err(StoreError::Unreachable {
            what: format!("the OSDs of {what}"),
            waited: limit,
            remedy: "check `ceph -s` and `ceph osd tree`".to_owned(),
        }),
        Err(Errno(code)) => Err(StoreError::Failed {
            operation: "checking",
            what,
            source: io::Error::from_raw_os_error(code).into(),
        }),
    }
}
