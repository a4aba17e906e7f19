//! The mounts of a daemon: the one of all homes, and those of single homes.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::control::MountInfo;
use crate::fuse::{
    Access, Invalidations, Loops, MountError, MountPoint, Runner, Session, raise_read_ahead,
    unmount,
};
use crate::view::{Form, Invalidate, Slot, Table, View};

/// How long the end of a mount is waited for once it was unmounted.
const END_WAIT_MAX: Duration = Duration::from_secs(3);
const END_WAIT_STEP: Duration = Duration::from_millis(10);

/// A mount that is served.
struct Served {
    session: Session,
    view: Arc<View>,
    home: Option<Arc<Slot>>,
    uid: u32,
}

/// All mounts of a daemon, by path.
pub struct Mounts {
    table: Arc<Table>,
    loops: Loops,
    served: Mutex<BTreeMap<PathBuf, Served>>,
    /// Told when a mount ends.
    pub ended: Arc<Notify>,
}

impl std::fmt::Debug for Mounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.served.lock().keys()).finish()
    }
}

impl Mounts {
    /// No mounts yet.
    #[must_use]
    pub fn new(table: Arc<Table>, loops: Loops) -> Self {
        Self { table, loops, served: Mutex::default(), ended: Arc::default() }
    }

    /// Shows all homes at `point`.
    ///
    /// # Errors
    /// Where it cannot be mounted or served.
    pub async fn show_all(
        &self,
        point: MountPoint,
        access: Access,
        form: Form,
    ) -> Result<PathBuf, MountError> {
        let table = Arc::clone(&self.table);
        let view = move |invalidate| View::of_homes(table, form, invalidate);
        self.serve(point, access, None, view).await
    }

    /// Shows one home at `point`, for `access` only.
    ///
    /// # Errors
    /// Where it cannot be mounted or served.
    pub async fn show_one(
        &self,
        point: MountPoint,
        access: Access,
        home: Arc<Slot>,
    ) -> Result<PathBuf, MountError> {
        let (table, slot) = (Arc::clone(&self.table), Arc::clone(&home));
        let view = move |invalidate| View::of_one(table, &slot, Form::Local, invalidate);
        self.serve(point, access, Some(home), view).await
    }

    async fn serve(
        &self,
        point: MountPoint,
        access: Access,
        home: Option<Arc<Slot>>,
        view: impl FnOnce(Arc<dyn Invalidate>) -> View,
    ) -> Result<PathBuf, MountError> {
        let invalidations = Arc::new(Invalidations::default());
        let view = Arc::new(view(Arc::clone(&invalidations) as Arc<dyn Invalidate>));
        let runner = Runner { view: Arc::clone(&view), runtime: Handle::current() };
        let (ended, loops) = (Arc::clone(&self.ended), self.loops);
        let path = point.path().to_owned();
        let start = move || {
            let device: OwnedFd = point.mount(access)?;
            let started = Session::start(device, runner, &invalidations, loops, move || {
                ended.notify_waiters();
            });
            started.map_err(|error| MountError::Io(point.path().to_owned(), error))
        };
        let joined = tokio::task::spawn_blocking(start).await;
        let io = |error| MountError::Io(path.clone(), error);
        let session = joined.map_err(|error| io(error.into()))??;
        raise_read_ahead(&path);
        let uid = match access {
            Access::All => rustix::process::geteuid().as_raw(),
            Access::Only(uid, _) => uid,
        };
        self.served.lock().insert(path.clone(), Served { session, view, home, uid });
        Ok(path)
    }

    /// Mounts of single homes.
    #[must_use]
    pub fn list(&self) -> Vec<MountInfo> {
        let served = self.served.lock();
        let one = |(path, mount): (&PathBuf, &Served)| {
            let home = mount.home.as_ref()?.name.to_string();
            Some(MountInfo { home, path: path.clone(), uid: mount.uid })
        };
        served.iter().filter_map(one).collect()
    }

    /// Forgets mounts that were unmounted from outside; gives whether the one at `watched`
    /// was among them.
    pub fn reap(&self, watched: Option<&Path>) -> bool {
        let mut served = self.served.lock();
        served.retain(|_, mount| !mount.session.has_ended());
        watched.is_some_and(|path| !served.contains_key(path))
    }

    /// Unmounts `path`. Where it is in use and `lazy`, it is detached, and served on as long as
    /// the daemon lives. Gives whether it had to be detached.
    ///
    /// # Errors
    /// `EBUSY` where it is in use; those of the system.
    pub async fn end(&self, path: &Path, lazy: bool) -> std::io::Result<bool> {
        let point = path.to_owned();
        let unmounted = tokio::task::spawn_blocking(move || match unmount(&point, false) {
            Err(_) if lazy => unmount(&point, true).map(|()| true),
            result => result.map(|()| false),
        });
        let detached = unmounted.await??;
        let mut waited = Duration::ZERO;
        while !detached && waited < END_WAIT_MAX && !self.has_ended(path) {
            tokio::time::sleep(END_WAIT_STEP).await;
            waited += END_WAIT_STEP;
        }
        if let Some(mount) = self.served.lock().remove(path)
            && !detached
        {
            mount.view.detach();
        }
        Ok(detached)
    }

    /// A home was removed: mounts of it end, and the others forget it.
    pub fn drop_home(&self, home: &Slot) {
        let mut alone = Vec::new();
        for (path, mount) in &*self.served.lock() {
            mount.view.drop_home(home);
            if mount.home.as_ref().is_some_and(|shown| shown.volume == home.volume) {
                alone.push(path.clone());
            }
        }
        for path in alone {
            if let Err(error) = unmount(&path, true) {
                tracing::warn!(path = %path.display(), %error, "a removed home stays mounted");
            }
        }
    }

    fn has_ended(&self, path: &Path) -> bool {
        self.served.lock().get(path).is_none_or(|mount| mount.session.has_ended())
    }

    /// Paths of all mounts.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.served.lock().keys().cloned().collect()
    }
}
