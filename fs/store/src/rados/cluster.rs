//! The connection to a cluster and the pools on it.
//!
//! A [`Pool`] holds its [`Cluster`], and every request in flight holds its pool: so librados is
//! shut down only when nothing can call back any more, whoever drops its future early.

use super::op::in_callback;
use super::trouble::{conf_error, connect_error, failed, no_keyring};
use crate::error::StoreError;
use crate::url::RadosUrl;
use ceph::rados as ffi;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::ptr;
use std::sync::Arc;
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
    pub(super) fn pool(
        self: &Arc<Self>,
        name: &str,
        namespace: &str,
    ) -> Result<Arc<Pool>, StoreError> {
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
        Ok(Arc::new(Pool {
            io,
            id,
            name: name.to_owned(),
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            kib: Arc::new(Semaphore::new(KIB_MAX)),
            cluster: Arc::clone(self),
        }))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
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
            std::thread::spawn(move || handle.shut_down());
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

/// A pool, in one namespace of it.
pub(super) struct Pool {
    pub(super) io: ffi::rados_ioctx_t,
    pub(super) id: i64,
    pub(super) name: String,
    requests: Arc<Semaphore>,
    kib: Arc<Semaphore>,
    pub(super) cluster: Arc<Cluster>,
}

// SAFETY: librados documents an ioctx as usable from any thread as long as its settings
// (namespace, snapshot, locator) do not change; they are set before the Pool exists.
unsafe impl Send for Pool {}
// SAFETY: as for Send.
unsafe impl Sync for Pool {}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({})", self.name)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: requests in flight hold the pool, so there are none; the cluster, which the
        // ioctx belongs to, is dropped after it.
        unsafe { ffi::rados_ioctx_destroy(self.io) };
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
