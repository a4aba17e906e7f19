//! Serving: opens the store, starts the daemon, says `ready`, and stays until it is told to go.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use yadokari_fs::home::owner::NodeIdentity;
use yadokari_fs::home::{self, ErrorKind, Quota};
use yadokari_fs::node::{
    LockError, Loops, Node, NodeConfig, NodeError, Records, Shows, StoreRecords, Whose,
};
use yadokari_fs::view::Form;
use yadokari_store::{Store, StoreOptions, StoreUrl};

use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::gateway::Running;
use crate::output;

/// Event loops per mount: one answers while another waits for the kernel.
const THREADS_MIN: usize = 2;
const THREADS_MAX: usize = 8;

/// What is served, and how.
pub struct Plan {
    /// What is mounted where.
    pub shows: Shows,
    /// What the kernel may keep to itself.
    pub form: Form,
    /// Print `ready …` on standard output.
    pub announce: bool,
    /// Take homes over from a node that still looks alive.
    pub take_over: bool,
    /// Serve the image registry beside.
    pub gateway: bool,
}

/// Serves until SIGTERM, SIGINT or the end of the mount.
///
/// # Errors
/// Whatever stops it before that, with its remedy.
pub fn run(settings: &Settings, plan: Plan) -> anyhow::Result<Exit> {
    let has_gateway = plan.gateway && !settings.gateway.addresses().0.is_empty();
    let runtime = runtime(has_gateway)?;
    let done = runtime.block_on(async {
        // Heard from the first moment on: a signal right behind `ready` must not kill.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let store = open_store_for_daemon(settings).await?;
        let records = start_records(settings, store.clone(), plan.take_over).await?;
        let config = node_config(settings, &plan, Arc::clone(&records) as Arc<dyn Records>)?;
        let node = Node::start(config).await.map_err(|error| explain(error, settings))?;
        let gateway = match start_gateway(settings, &plan, &store).await {
            Ok(gateway) => gateway,
            Err(error) => {
                node.shutdown().await.context("not everything could be written to the store")?;
                return Err(error);
            }
        };
        if plan.announce {
            settings.remember_store();
            let shown = gateway.as_ref().map(Running::shown).unwrap_or_default();
            output::announce(&format!("{}{shown}\n", node.ready_line()))?;
        }
        tokio::select! {
            () = node.wait() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("writing everything to the store, then leaving");
        let ending = async {
            if let Some(gateway) = gateway {
                gateway.shutdown().await;
            }
        };
        let (stopped, ()) = tokio::join!(node.shutdown(), ending);
        stopped.context("not everything could be written to the store")?;
        records.shutdown().await.context("a home was not given up")?;
        if let Err(error) = store.settle().await {
            tracing::warn!(%error, "the store is settled at its next opening");
        }
        Ok(Exit::Done)
    });
    // What still runs now only tidies up; it must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// One thread fewer than processors where only homes are served: the event loops and the user's
/// programs need one too (`cli/decisions/a-processor-for-the-user.md`). A gateway hashes what
/// several clients push at once, and has them all.
fn runtime(has_gateway: bool) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if !has_gateway {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        builder.worker_threads((processors - 1).max(1));
    }
    builder.enable_all().build()
}

/// Opens the store, or says what is wrong with it.
///
/// # Errors
/// `Usage` for a URL that cannot be read; `Failed` for a store that does not answer.
pub async fn open_store(settings: &Settings, options: &StoreOptions) -> anyhow::Result<Store> {
    let text = settings.store_url();
    let url: StoreUrl = text.parse().map_err(|error: yadokari_store::UrlError| {
        Failure::usage(format!("store URL `{text}`: {}: {}", error.part, error.problem))
            .remedy(error.remedy)
    })?;
    if let StoreUrl::File(path) = &url
        && settings.store.is_none()
    {
        let made = std::fs::create_dir_all(path);
        made.with_context(|| format!("making the embedded store {}", path.display()))?;
    }
    let opening = Store::open(&url, options);
    let store = output::with_progress("opening the store", opening).await;
    store.with_context(|| format!("store {text}"))
}

/// Opens the store's records of homes.
///
/// # Errors
/// As [`open_store`].
pub async fn open_records(
    settings: &Settings,
    take_over: bool,
) -> anyhow::Result<Arc<StoreRecords>> {
    let store = open_store_for_daemon(settings).await?;
    start_records(settings, store, take_over).await
}

async fn open_store_for_daemon(settings: &Settings) -> anyhow::Result<Store> {
    let options =
        StoreOptions { request_timeout: settings.timing_store_timeout, ..StoreOptions::default() };
    Ok(crate::test_hook::wrap(open_store(settings, &options).await?))
}

/// On loopback the kernel says who calls: only the listener that `up` makes is such a one.
async fn start_gateway(
    settings: &Settings,
    plan: &Plan,
    store: &Store,
) -> anyhow::Result<Option<Running>> {
    if !plan.gateway {
        return Ok(None);
    }
    Running::start(settings, store, plan.form == Form::Local).await
}

async fn start_records(
    settings: &Settings,
    store: Store,
    take_over: bool,
) -> anyhow::Result<Arc<StoreRecords>> {
    let shared = home::Shared::new(home_config(settings));
    let identity = NodeIdentity::of_this_process(None).context("reading /proc")?;
    let records = Arc::new(StoreRecords::start(store, identity, shared, take_over).await);
    // Never torn down: librados does not bear that while its threads run. The process ends by
    // `yadokari_store::leave`, after everything was written and given up.
    std::mem::forget(Arc::clone(&records));
    Ok(records)
}

fn home_config(settings: &Settings) -> home::Config {
    home::Config {
        data_cache_bytes: settings.memory_data_cache,
        table_cache_bytes: settings.memory_table_cache,
        dirty_bytes_max: settings.memory_dirty_max,
        cached_inodes_max: usize::try_from(settings.memory_inodes_max).unwrap_or(usize::MAX),
        commit_interval: settings.timing_commit,
        flush_interval: settings.timing_flush,
        store_timeout: settings.timing_store_timeout,
        ..home::Config::default()
    }
}

fn node_config(
    settings: &Settings,
    plan: &Plan,
    records: Arc<dyn Records>,
) -> anyhow::Result<NodeConfig> {
    let uid = rustix::process::geteuid().as_raw();
    let whose = if uid == 0 {
        Whose::Everyone
    } else {
        let user = crate::users::find(&uid.to_string()).ok_or_else(|| {
            Failure::failed(format!("the system knows no user with the id {uid}"))
                .remedy("homes belong to users: run as one that `getent passwd` shows")
        })?;
        Whose::Own { name: user.name, uid: user.uid, gid: user.gid }
    };
    let threads = std::thread::available_parallelism().map_or(THREADS_MIN, usize::from);
    Ok(NodeConfig {
        data_dir: settings.data.clone(),
        records,
        shows: plan.shows.clone(),
        form: plan.form,
        whose,
        skeleton: settings.home_skeleton.clone(),
        quota: Quota { bytes: settings.home_quota, inodes: settings.home_inodes },
        keep: settings.snapshots_keep,
        idle_after: settings.timing_idle,
        loops: Loops {
            threads: threads.clamp(THREADS_MIN, THREADS_MAX),
            awake: settings.timing_awake,
        },
        allow_other: uid != 0 && others_allowed(),
    })
}

/// What `up` and `node` show.
pub fn all_homes(settings: &Settings) -> Shows {
    Shows::Homes(settings.mount_dir())
}

/// What `mount` shows where no daemon runs.
pub fn one_home(home: &str, path: PathBuf) -> Shows {
    Shows::One { home: home.to_owned(), path }
}

/// fusermount3 refuses `allow_other` unless the administrator allowed it.
fn others_allowed() -> bool {
    let text = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    text.lines().any(|line| line.trim() == "user_allow_other")
}

fn explain(error: NodeError, settings: &Settings) -> anyhow::Error {
    let message = error.to_string();
    match error {
        NodeError::Lock(LockError::Held(..)) => Failure::refused(message)
            .remedy(format!(
                "ask it:            yadokari status --data {0}\n\
                 or start another:  yadokari up --data ANOTHER_DIR",
                settings.data.display()
            ))
            .into(),
        NodeError::Mount(_) => Failure::failed(message)
            .remedy(
                "yadokari doctor says what this machine is missing; --home DIR mounts elsewhere",
            )
            .into(),
        NodeError::Home(_, cause) if matches!(cause.kind(), ErrorKind::OwnedElsewhere(_)) => {
            anyhow::Error::from(cause)
        }
        NodeError::Home(name, cause) => anyhow::Error::from(cause).context(format!("home {name}")),
        NodeError::Lock(LockError::Io(..)) | NodeError::Io(..) => {
            Failure::failed(message).remedy("--data DIR names another data directory").into()
        }
    }
}
