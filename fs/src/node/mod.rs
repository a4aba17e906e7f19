//! The daemon of a node: serves homes on mounts, makes homes for users, answers commands.
//!
//! One process per data directory. Start it inside a tokio runtime (two or more workers), print
//! its ready line, wait, shut it down:
//!
//! ```text
//! let node = Node::start(config).await?;
//! println!("{}", node.ready_line());
//! node.wait().await;
//! node.shutdown().await?;
//! ```

pub mod accounts;
pub mod client;
mod commands;
pub mod control;
mod directory;
mod keeping;
mod lockfile;
mod mounts;
mod records;
mod server;
mod skeleton;
pub mod snapshots;
mod store_records;
mod systemd;
pub mod transfer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

pub use accounts::{Accounts, uids_of_people};
pub use directory::{Making, Whose};
pub use lockfile::{DataLock, Holder, LockError};
pub use records::{NewHome, Records};
pub use store_records::StoreRecords;

pub use crate::fuse::Loops;
use crate::fuse::{Access, MountError, MountPoint};
use crate::home::{Error, ErrorKind, Keep, Quota};
use crate::view::{Directory, Form, Table};
use commands::Commands;
use control::SOCKET;
use directory::Homes;
use mounts::Mounts;

/// How often idle homes are looked for, at most and at least.
const IDLE_LOOK: Duration = Duration::from_secs(5);
const IDLE_LOOK_MIN: Duration = Duration::from_millis(100);
/// Homes that stay open though nothing uses them: each takes 0.4 MiB. Of more, those that were
/// used last stay.
const OPEN_MAX: usize = 128;
/// A home that was used so short a while ago stays open, however many there are.
const CROWDED_IDLE: Duration = Duration::from_secs(5);

/// What a daemon shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shows {
    /// All homes at this directory, made where it is missing.
    Homes(PathBuf),
    /// One home alone: what `mount` does where no daemon runs.
    One {
        /// The home.
        home: String,
        /// The directory.
        path: PathBuf,
    },
    /// Nothing until a command asks for it.
    Nothing,
}

/// Settings of a daemon.
pub struct NodeConfig {
    /// Its directory: lock, socket, and the embedded store where there is one.
    pub data_dir: PathBuf,
    /// The homes of its store.
    pub records: Arc<dyn Records>,
    /// What it shows.
    pub shows: Shows,
    /// What the kernel may keep to itself on the mount of all homes.
    pub form: Form,
    /// Whose homes it shows.
    pub whose: Whose,
    /// What new homes are filled with: `/etc/skel`.
    pub skeleton: PathBuf,
    /// Limits of new homes.
    pub quota: Quota,
    /// Snapshots that the schedule keeps.
    pub keep: Keep,
    /// Homes that nothing uses for so long are closed.
    pub idle_after: Duration,
    /// How the requests of each mount are read.
    pub loops: Loops,
    /// Whether other users may use the mount, where the daemon is not root's: needs
    /// `user_allow_other` in `/etc/fuse.conf`.
    pub allow_other: bool,
}

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another daemon has the data directory, or it cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A mount fails.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A home that is to be shown is not there, or does not open.
    #[error("home {0}: {1}")]
    Home(String, #[source] Error),
    /// Some system call failed.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] std::io::Error),
}

/// Starts daemons.
#[derive(Debug)]
pub struct Node;

/// A daemon that runs.
pub struct RunningNode {
    commands: Arc<Commands>,
    socket: PathBuf,
    shown: Option<PathBuf>,
    tasks: Vec<JoinHandle<()>>,
    _lock: DataLock,
}

impl Node {
    /// Locks the data directory, mounts, and listens for commands. Gives a daemon that serves.
    ///
    /// # Errors
    /// See [`NodeError`]; nothing is left behind.
    pub async fn start(config: NodeConfig) -> Result<RunningNode, NodeError> {
        let io = |path: &Path, error| NodeError::Io(path.to_owned(), error);
        std::fs::create_dir_all(&config.data_dir).map_err(|e| io(&config.data_dir, e))?;
        let lock = lockfile::lock(&config.data_dir)?;
        let uids = uids_of_people(Path::new("/etc/login.defs"));
        let making = Making {
            whose: config.whose.clone(),
            skeleton: config.skeleton.clone(),
            quota: config.quota,
        };
        let accounts = Accounts::of_system(uids);
        let homes = Arc::new(Homes::new(Arc::clone(&config.records), accounts, making));
        let table = Table::new(Arc::clone(&homes) as Arc<dyn Directory>);
        let mounts = Arc::new(Mounts::new(Arc::clone(&table), config.loops));
        let socket = config.data_dir.join(SOCKET);
        let listener = server::listen(&socket).map_err(|e| io(&socket, e))?;
        let shown = show(&config, &homes, &table, &mounts).await?;
        let schedule =
            snapshots::keep_schedule(Arc::clone(&table), Arc::clone(&config.records), config.keep);
        let commands = Arc::new(Commands {
            homes,
            table: Arc::clone(&table),
            mounts,
            homes_mount: shown.clone().filter(|_| matches!(config.shows, Shows::Homes(_))),
            since: lockfile::now(),
            stop: Arc::new(Notify::new()),
        });
        let tasks = vec![
            tokio::spawn(server::serve(listener, Arc::clone(&commands))),
            tokio::spawn(close_idle(table, config.idle_after)),
            tokio::spawn(schedule),
        ];
        systemd::notify("READY=1");
        Ok(RunningNode { commands, socket, shown, tasks, _lock: lock })
    }
}

async fn show(
    config: &NodeConfig,
    homes: &Homes,
    table: &Arc<Table>,
    mounts: &Mounts,
) -> Result<Option<PathBuf>, NodeError> {
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let access = match own.0 == 0 || config.allow_other {
        true => Access::All,
        false => Access::Only(own.0, own.1),
    };
    match &config.shows {
        Shows::Nothing => Ok(None),
        Shows::Homes(path) => {
            let point = MountPoint::prepare(path, true)?;
            Ok(Some(mounts.show_all(point, access, config.form).await?))
        }
        Shows::One { home, path } => {
            let failed = |error| NodeError::Home(home.clone(), error);
            let head = homes.records().show(home).await.map_err(failed)?;
            let head = head.ok_or_else(|| failed(ErrorKind::NotFound.into()))?;
            let slot = table.slot(&head);
            // A home that does not open is better told now than by every operation later.
            slot.home().await.map_err(failed)?;
            let point = MountPoint::prepare(path, false)?;
            Ok(Some(mounts.show_one(point, access, slot).await?))
        }
    }
}

/// Closes homes that nothing uses; each on its own, so that none waits for another's store.
async fn close_idle(table: Arc<Table>, idle: Duration) {
    loop {
        tokio::time::sleep(idle.clamp(IDLE_LOOK_MIN, IDLE_LOOK)).await;
        let mut open: Vec<_> =
            table.all().into_iter().filter_map(|slot| Some((slot.unused_for()?, slot))).collect();
        open.sort_by_key(|(unused, _)| *unused);
        for (n, (_, slot)) in open.into_iter().enumerate() {
            let idle = if n < OPEN_MAX { idle } else { idle.min(CROWDED_IDLE) };
            tokio::spawn(async move {
                // What fails was logged where it happened; the home stays open.
                let _ = slot.close_idle(idle).await;
            });
        }
    }
}

impl RunningNode {
    /// The line that tells scripts that everything serves.
    #[must_use]
    pub fn ready_line(&self) -> String {
        let shown = self.shown.as_ref().map(|path| format!(" homes={}", path.display()));
        let socket = self.socket.display();
        format!("ready{} control={socket} pid={}", shown.unwrap_or_default(), std::process::id())
    }

    /// Waits for SIGTERM, SIGINT, the `shutdown` command, or the end of the mount from outside.
    pub async fn wait(&self) {
        let terminate = signal(SignalKind::terminate());
        let interrupt = signal(SignalKind::interrupt());
        let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
            tracing::error!("signals cannot be waited for");
            return self.commands.stop.notified().await;
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                () = self.commands.stop.notified() => return,
                () = self.commands.mounts.ended.notified() => {
                    if self.commands.mounts.reap(self.shown.as_deref()) {
                        tracing::warn!("the mount was ended from outside");
                        return;
                    }
                }
            }
        }
    }

    /// Makes everything durable, unmounts and closes all homes.
    ///
    /// # Errors
    /// The homes that could not be closed, whose last changes are lost.
    pub async fn shutdown(self) -> Result<(), NodeError> {
        systemd::notify("STOPPING=1");
        for task in &self.tasks {
            task.abort();
        }
        let _ = std::fs::remove_file(&self.socket);
        let table = &self.commands.table;
        // Before the mounts go, so that the wait for what is still used costs nothing durable.
        sync_all(table).await;
        let mounts = &self.commands.mounts;
        for path in mounts.paths() {
            match mounts.end(&path, true).await {
                Ok(true) => {
                    let path = path.display();
                    tracing::warn!(%path, "in use: detached; what uses it loses it now");
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(path = %path.display(), %error, "stays mounted"),
            }
        }
        let mut closing = JoinSet::new();
        for slot in table.all() {
            slot.retire();
            closing.spawn(async move { (slot.name.to_string(), slot.close().await) });
        }
        let mut result = Ok(());
        while let Some(closed) = closing.join_next().await {
            if let Ok((name, Err(error))) = closed {
                result = Err(NodeError::Home(name, error));
            }
        }
        result
    }
}

async fn sync_all(table: &Table) {
    let mut syncing = JoinSet::new();
    for slot in table.all() {
        if let Some(open) = slot.opened() {
            // An error shows again when the home is closed.
            syncing.spawn(async move { drop(open.home.sync().await) });
        }
    }
    syncing.join_all().await;
}
