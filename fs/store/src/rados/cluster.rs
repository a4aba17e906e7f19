//! The connection to a cluster and the pools on it.
//!
//! A [`Link`] is a pool over one connection, and every request in flight holds its link, which
//! holds its [`Cluster`]: so librados is shut down only when nothing can call back any more,
//! whoever drops its future early.
//!
//! A cluster that blocklists a client hears it no more, for good. A [`Pool`] then connects anew
//! (`renew`) and goes on over another link; who may write what is not decided here but by the
//! owner records and the fencing above, and nothing that the old client sent happens later.

use super::exit::{UnderWay, wait_at_exit};
use super::op::in_callback;
use super::trouble::{conf_error, connect_error, failed, no_keyring};
use crate::error::StoreError;
use crate::url::RadosUrl;
use ceph::rados as ffi;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Requests of one pool in flight at most. librados would block the submitting thread at its own
/// limits, which are set above these.
const REQUESTS_MAX: usize = 2048;
/// Bytes of one pool in flight at most, in units of a KiB.
const KIB_MAX: usize = 256 << 10;
const LIBRADOS_OPS_MAX: &str = "24576";
const LIBRADOS_BYTES_MAX: &str = "4294967296";

/// A connected `rados_t`.
pub(super) struct Cluster {
    handle: ffi::rados_t,
}

// SAFETY: librados documents rados_t as usable from any thread; Cluster only hands it to
// functions that are thread-safe, and shuts it down once, when the last reference is gone.
unsafe impl Send for Cluster {}
// SAFETY: as for Send.
unsafe impl Sync for Cluster {}

impl Cluster {
    /// Connects. Blocks, at most about `url.timeout`.
    pub(super) fn connect(
        url: &RadosUrl,
        request_timeout: Duration,
    ) -> Result<Arc<Cluster>, StoreError> {
        static CONNECTED: Once = Once::new();
        let id = c_string(&url.client)?;
        let mut handle: ffi::rados_t = ptr::null_mut();
        // SAFETY: `handle` outlives the call, `id` is a C string.
        let code = unsafe { ffi::rados_create(&mut handle, id.as_ptr()) };
        if code < 0 {
            return Err(failed("setting up librados", &format!("client.{}", url.client), code));
        }
        let cluster = Cluster { handle };
        cluster.read_conf(url)?;
        let seconds = |time: Duration| time.as_secs().max(1).to_string();
        let settings = [
            ("client_mount_timeout", seconds(url.timeout)),
            ("rados_mon_op_timeout", seconds(url.timeout)),
            ("rados_osd_op_timeout", seconds(request_timeout)),
            ("objecter_inflight_ops", LIBRADOS_OPS_MAX.to_owned()),
            ("objecter_inflight_op_bytes", LIBRADOS_BYTES_MAX.to_owned()),
            // What goes wrong is told by the errors; a library does not write to the terminal.
            ("log_to_stderr", "false".to_owned()),
            ("err_to_stderr", "false".to_owned()),
        ];
        for (key, value) in settings {
            cluster.set(key, &value)?;
        }
        // SAFETY: the handle was created above and is not connected yet.
        let code = unsafe { ffi::rados_connect(cluster.handle) };
        if code < 0 {
            return Err(connect_error(url, code));
        }
        wait_at_exit(&CONNECTED);
        Ok(Arc::new(cluster))
    }

    fn read_conf(&self, url: &RadosUrl) -> Result<(), StoreError> {
        let path = url.conf.as_deref().map(|path| c_string(&path.to_string_lossy())).transpose()?;
        let pointer = path.as_ref().map_or(ptr::null(), |path| path.as_ptr());
        // SAFETY: the pointer is null (the search path) or a C string that outlives the call.
        let code = unsafe { ffi::rados_conf_read_file(self.handle, pointer) };
        match (&url.conf, code) {
            (_, 0..) => {}
            (Some(conf), _) => return Err(conf_error(conf, code)),
            (None, _) if url.mon_host.is_some() => {}
            (None, _) => {
                return Err(StoreError::NotFound {
                    what: "a Ceph configuration (/etc/ceph/ceph.conf)".to_owned(),
                    remedy: "name it with ?conf=/path/ceph.conf, or the monitors with \
                             ?mon_host=ADDRESS"
                        .to_owned(),
                });
            }
        }
        if let Some(mon_host) = &url.mon_host {
            self.set("mon_host", mon_host)?;
        }
        if let Some(keyring) = &url.keyring {
            if !keyring.exists() {
                return Err(no_keyring(url, Some(keyring)));
            }
            self.set("keyring", &keyring.to_string_lossy())?;
        }
        Ok(())
    }

    fn set(&self, key: &str, value: &str) -> Result<(), StoreError> {
        let (name, text) = (c_string(key)?, c_string(value)?);
        // SAFETY: both are C strings that outlive the call.
        let code = unsafe { ffi::rados_conf_set(self.handle, name.as_ptr(), text.as_ptr()) };
        if code < 0 {
            return Err(StoreError::Invalid {
                what: format!("`{value}` for {key}"),
                remedy: "Ceph does not accept it: correct the store URL".to_owned(),
            });
        }
        Ok(())
    }

    /// Asks the monitors; the answer is JSON. Blocks, at most the URL's timeout.
    pub(super) fn mon_command(&self, command: &str) -> io::Result<Vec<u8>> {
        let command = CString::new(command)?;
        let mut commands = [command.as_ptr()];
        let (mut out, mut status) = (ptr::null_mut(), ptr::null_mut());
        let (mut out_len, mut status_len) = (0, 0);
        // SAFETY: the command array and the four out places outlive the call; no input buffer.
        let code = unsafe {
            ffi::rados_mon_command(
                self.handle,
                commands.as_mut_ptr(),
                1,
                ptr::null(),
                0,
                &mut out,
                &mut out_len,
                &mut status,
                &mut status_len,
            )
        };
        let mut answer = Vec::new();
        if !out.is_null() {
            // SAFETY: librados set `out` to `out_len` bytes that are ours until they are freed.
            answer.extend_from_slice(unsafe {
                std::slice::from_raw_parts(out.cast_const().cast(), out_len)
            });
        }
        for buffer in [out, status] {
            if !buffer.is_null() {
                // SAFETY: it came from librados and is used no more.
                unsafe { ffi::rados_buffer_free(buffer) };
            }
        }
        if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(answer) }
    }

    /// Capacity, used and free KiB of the cluster, before replication. Blocks.
    pub(super) fn stat(&self) -> io::Result<ffi::Struct_rados_cluster_stat_t> {
        let mut stat = ffi::Struct_rados_cluster_stat_t::default();
        // SAFETY: `stat` outlives the call.
        let code = unsafe { ffi::rados_cluster_stat(self.handle, &mut stat) };
        if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(stat) }
    }

    /// Opens a pool. Blocks.
    fn link(self: &Arc<Self>, name: &str, namespace: &str) -> Result<Arc<Link>, StoreError> {
        let (c_name, c_namespace) = (c_string(name)?, c_string(namespace)?);
        let mut io: ffi::rados_ioctx_t = ptr::null_mut();
        // SAFETY: the handle is connected, `c_name` a C string, `io` outlives the call.
        let code = unsafe { ffi::rados_ioctx_create(self.handle, c_name.as_ptr(), &mut io) };
        if code == -libc::ENOENT {
            return Err(StoreError::NotFound {
                what: format!("pool `{name}`"),
                remedy: format!("make it with `ceph osd pool create {name}`, or correct the URL"),
            });
        }
        if code < 0 {
            return Err(failed("opening", &format!("pool `{name}`"), code));
        }
        // SAFETY: `io` was created above, the namespace is a C string.
        let id = unsafe {
            ffi::rados_ioctx_set_namespace(io, c_namespace.as_ptr());
            ffi::rados_ioctx_get_id(io)
        };
        Ok(Arc::new(Link { io, id, cluster: Arc::clone(self) }))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        static SHUT_DOWN_BESIDE: Once = Once::new();
        struct Handle(ffi::rados_t);
        // SAFETY: as for Cluster; this is its only reference from here on.
        unsafe impl Send for Handle {}
        impl Handle {
            fn shut_down(self) {
                // SAFETY: the last reference is gone, so no request is in flight and none comes.
                unsafe { ffi::rados_shutdown(self.0) };
            }
        }
        let handle = Handle(self.handle);
        if in_callback() {
            // librados waits for its callback threads, so one of them must not wait for it.
            let under_way = UnderWay::begin();
            wait_at_exit(&SHUT_DOWN_BESIDE);
            std::thread::spawn(move || {
                handle.shut_down();
                drop(under_way);
            });
        } else {
            handle.shut_down();
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

/// A pool over one connection, in one namespace of it.
pub(super) struct Link {
    pub(super) io: ffi::rados_ioctx_t,
    id: i64,
    pub(super) cluster: Arc<Cluster>,
}

// SAFETY: librados documents an ioctx as usable from any thread as long as its settings
// (namespace, snapshot, locator) do not change; they are set before the Link exists.
unsafe impl Send for Link {}
// SAFETY: as for Send.
unsafe impl Sync for Link {}

impl Drop for Link {
    fn drop(&mut self) {
        // SAFETY: requests in flight hold the link, so there are none; the cluster, which the
        // ioctx belongs to, is dropped after it.
        unsafe { ffi::rados_ioctx_destroy(self.io) };
    }
}

/// How to connect, and the connection that the pools share at the moment.
pub(super) struct Connection {
    url: RadosUrl,
    request_timeout: Duration,
    current: Mutex<Arc<Cluster>>,
}

impl Connection {
    /// Connects. Blocks.
    pub(super) fn new(
        url: &RadosUrl,
        request_timeout: Duration,
    ) -> Result<Arc<Connection>, StoreError> {
        let current = Mutex::new(Cluster::connect(url, request_timeout)?);
        Ok(Arc::new(Connection { url: url.clone(), request_timeout, current }))
    }

    /// Opens a pool. Blocks.
    pub(super) fn pool(self: &Arc<Self>, name: &str) -> Result<Arc<Pool>, StoreError> {
        let cluster = Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner));
        let link = cluster.link(name, &self.url.namespace)?;
        Ok(Arc::new(Pool {
            id: link.id,
            name: name.to_owned(),
            link: RwLock::new(link),
            renewing: AtomicBool::new(false),
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            kib: Arc::new(Semaphore::new(KIB_MAX)),
            connection: Arc::clone(self),
        }))
    }

    /// A connection that is not `failed`: the one that another pool made meanwhile, or a new
    /// one. Blocks.
    fn another(&self, failed: &Arc<Cluster>) -> Result<Arc<Cluster>, StoreError> {
        // Held while connecting, so that all pools get the same.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, failed) {
            *current = Cluster::connect(&self.url, self.request_timeout)?;
        }
        Ok(Arc::clone(&current))
    }
}

/// A pool, in one namespace of it, over whatever connection works.
pub(super) struct Pool {
    pub(super) id: i64,
    pub(super) name: String,
    link: RwLock<Arc<Link>>,
    renewing: AtomicBool,
    requests: Arc<Semaphore>,
    kib: Arc<Semaphore>,
    connection: Arc<Connection>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({})", self.name)
    }
}

impl Pool {
    /// The way to the pool at the moment.
    pub(super) fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The cluster hears the client behind `failed` no more: connects as a new one, in the
    /// background. Whoever comes next finds it, or asks for it again.
    pub(super) fn renew(self: &Arc<Self>, failed: Arc<Link>) {
        if !Arc::ptr_eq(&failed, &self.link()) || self.renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::warn!(
            pool = self.name,
            "the cluster has blocklisted this client: connecting anew"
        );
        let pool = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let connected = pool
                .connection
                .another(&failed.cluster)
                .and_then(|cluster| cluster.link(&pool.name, &pool.connection.url.namespace));
            match connected {
                Ok(link) => {
                    tracing::info!(pool = pool.name, "connected anew");
                    *pool.link.write().unwrap_or_else(PoisonError::into_inner) = link;
                }
                Err(error) => tracing::warn!(pool = pool.name, %error, "connecting anew failed"),
            }
            pool.renewing.store(false, Ordering::Release);
        });
    }
}

/// A place among the requests in flight, given back when the request has completed.
#[derive(Debug)]
pub(super) struct Room {
    _request: tokio::sync::OwnedSemaphorePermit,
    _kib: tokio::sync::OwnedSemaphorePermit,
}

impl Pool {
    /// Waits until a request of so many bytes may be sent.
    pub(super) async fn room(&self, bytes: usize) -> Room {
        const OPEN: &str = "the semaphore is never closed";
        let kib = u32::try_from((bytes >> 10).min(KIB_MAX)).unwrap_or(u32::MAX);
        // Always in this order, so that two that wait cannot wait for each other.
        let kib = Arc::clone(&self.kib).acquire_many_owned(kib).await.expect(OPEN);
        let request = Arc::clone(&self.requests).acquire_owned().await.expect(OPEN);
        Room { _request: request, _kib: kib }
    }
}

fn c_string(text: &str) -> Result<CString, StoreError> {
    CString::new(text).map_err(|_nul| StoreError::Invalid {
        what: format!("`{}`", text.escape_debug()),
        remedy: "leave the zero byte out of the store URL".to_owned(),
    })
}
