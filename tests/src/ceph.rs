//! A real Ceph cluster of one node, from the distribution's packages, for as long as a test runs.
//!
//! Monitor, manager and OSDs run in the foreground as children of this process, with all their
//! state in one scratch directory and on loopback ports chosen free, so that several clusters can
//! run side by side. They die with this process, whatever ends it, and the directory goes with
//! them. OSDs keep their data in memory by default: they lose it when they are killed, not when
//! they are stopped.
//!
//! A test that needs nothing special asks for [`shared_url`], with a namespace of its own: one
//! cluster per process, or the one that `with-ceph` started for the whole run and named in
//! [`CONF_ENV`]. A missing package is an error that names it.

mod conf;
mod process;

use anyhow::{Context, Result, bail};
use process::Daemon;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The ceph.conf of a cluster that is already there, with the pools `data` and `meta`.
pub const CONF_ENV: &str = "YADOKARI_TEST_CEPH_CONF";
/// Has the allocator of the C library, or tcmalloc, keep what was freed.
const KEEPS_MEMORY: [(&str, &str); 5] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_MAX_", "0"),
    ("MALLOC_TRIM_THRESHOLD_", "1000000000000"),
    ("MALLOC_TOP_PAD_", "67108864"),
    ("TCMALLOC_RELEASE_RATE", "0"),
];
/// A busy machine starts a cluster in well under this.
const READY_MAX: Duration = Duration::from_secs(120);

/// What kind of cluster.
#[derive(Debug, Clone)]
pub struct Options {
    pub osds: usize,
    /// Keeps data on disk, so that it survives `kill_osd`; slower.
    pub bluestore: bool,
    /// Where everything listens.
    pub address: String,
    /// Lines for the [global] section, as `osd max object size = 4194304`.
    pub settings: Vec<String>,
    /// OSDs that keep data in memory return none to the system, so that what is written does not
    /// wait for pages, as it does not where data is kept on disks.
    pub keeps_memory: bool,
}

impl Default for Options {
    fn default() -> Self {
        let address = "127.0.0.1".to_owned();
        Options { osds: 1, bluestore: false, address, settings: Vec::new(), keeps_memory: false }
    }
}

impl Options {
    /// For a cluster whose only OSD is paused. A placement group reads and writes under a lease
    /// of 0.8 times the heartbeat grace; one that found it over after the pause stays
    /// `active+clean+laggy` for good now and then (seen with Ceph 16.2.15 on a loaded machine, all
    /// threads of the OSD idle and its requests `waiting for readable`), until an administrator
    /// says `ceph pg repeer`. That is no state to test a client with, so this lease outlives the
    /// pause. Not for OSDs that are killed: their successor waits for the end of the lease.
    pub fn to_be_paused() -> Self {
        let settings = vec!["osd pool default read lease ratio = 60".to_owned()];
        Options { settings, ..Options::default() }
    }
}

/// A running cluster with the replicated pools `data` and `meta`. Dropping it ends it.
pub struct Ceph {
    scratch: process::Scratch,
    mon: Mutex<Option<Daemon>>,
    mgr: Mutex<Option<Daemon>>,
    mds: Mutex<Option<Daemon>>,
    osds: Mutex<Vec<Option<Daemon>>>,
    keeps_memory: bool,
}

impl Ceph {
    pub fn start() -> Result<Ceph> {
        Ceph::start_with(&Options::default())
    }

    pub fn start_with(options: &Options) -> Result<Ceph> {
        process::require(&[
            ("ceph-mon", "ceph-mon"),
            ("ceph-mgr", "ceph-mgr"),
            ("ceph-osd", "ceph-osd"),
            ("ceph-authtool", "ceph-common"),
            ("monmaptool", "ceph-base"),
            ("ceph", "ceph-common"),
            ("rados", "ceph-common"),
        ])?;
        let scratch = process::Scratch::new()?;
        let uuids = conf::write(scratch.path(), options)?;
        let ceph = Ceph {
            scratch,
            mon: Mutex::new(None),
            mgr: Mutex::new(None),
            mds: Mutex::new(None),
            osds: Mutex::new(uuids.iter().map(|_| None).collect()),
            keeps_memory: options.keeps_memory,
        };
        ceph.start_mon()?;
        let new: Vec<String> = uuids.iter().map(|uuid| format!("osd new {uuid}")).collect();
        ceph.script(&new)?;
        *ceph.mgr.lock().expect("no panic") = Some(ceph.daemon("ceph-mgr", "x", &[])?);
        for (id, uuid) in uuids.iter().enumerate() {
            let id = id.to_string();
            ceph.run("ceph-osd", &["-i", &id, "--mkfs", "--osd-uuid", uuid])?;
        }
        for id in 0..uuids.len() {
            ceph.start_osd(id)?;
        }
        ceph.script(&["osd pool create data 8", "osd pool create meta 8"])?;
        for pool in ["data", "meta"] {
            ceph.wait_for_pool(pool)?;
        }
        Ok(ceph)
    }

    pub fn conf(&self) -> PathBuf {
        self.scratch.path().join("ceph.conf")
    }

    /// The store in the pools `data` and `meta`, in a namespace.
    pub fn url(&self, namespace: &str) -> String {
        url(&self.conf(), namespace)
    }

    /// Runs the `ceph` tool; its standard output.
    pub fn ceph(&self, args: &[&str]) -> Result<String> {
        self.run("ceph", args)
    }

    /// Runs several commands in one `ceph`, which costs one start of Python instead of many.
    pub fn script<S: AsRef<str>>(&self, lines: &[S]) -> Result<()> {
        let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
        process::run_with_input(self.command("ceph"), &(lines.join("\n") + "\n"))
    }

    /// Runs the `rados` tool; its standard output.
    pub fn rados(&self, args: &[&str]) -> Result<String> {
        self.run("rados", args)
    }

    /// Adds CephFS, called `fs`, in pools of its own, and waits until it serves.
    pub fn start_fs(&self) -> Result<()> {
        process::require(&[("ceph-mds", "ceph-mds")])?;
        self.script(&[
            "osd pool create fs_meta 8",
            "osd pool create fs_data 8",
            "fs new fs fs_meta fs_data",
        ])?;
        *self.mds.lock().expect("no panic") = Some(self.daemon("ceph-mds", "a", &[])?);
        let deadline = Instant::now() + READY_MAX;
        while !self.ceph(&["mds", "stat"])?.contains("up:active") {
            if Instant::now() > deadline {
                bail!("the metadata server is not active");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    pub fn create_pool(&self, name: &str) -> Result<()> {
        self.ceph(&["osd", "pool", "create", name, "8"])?;
        self.wait_for_pool(name)
    }

    /// An erasure-coded pool of two data parts and one coding part; needs three OSDs.
    pub fn create_erasure_pool(&self, name: &str) -> Result<()> {
        self.script(&[
            "osd erasure-code-profile set two-one k=2 m=1 crush-failure-domain=osd".to_owned(),
            format!("osd pool create {name} 8 8 erasure two-one"),
        ])?;
        self.wait_for_pool(name)
    }

    /// Has every OSD believe that it is full, or no longer. The pools' flags, and the clients,
    /// follow within some seconds.
    pub fn set_full(&self, full: bool) -> Result<()> {
        let kind = if full { "full" } else { "none" };
        let osds = self.osds.lock().expect("no panic").len();
        for id in 0..osds {
            self.ceph(&["tell", &format!("osd.{id}"), "injectfull", kind])?;
        }
        Ok(())
    }

    /// Adds a user; gives the path of its keyring. `caps` as in `&["mon", "allow r"]`.
    pub fn add_client(&self, name: &str, caps: &[&str]) -> Result<PathBuf> {
        let keyring = self.scratch.path().join(format!("client.{name}.keyring"));
        let (user, file) = (format!("client.{name}"), keyring.display().to_string());
        let mut args = vec!["auth", "get-or-create", &user];
        args.extend_from_slice(caps);
        args.extend(["-o", &file]);
        self.ceph(&args)?;
        Ok(keyring)
    }

    /// Has the cluster hear the present clients of a user no more; gives how many these are.
    pub fn blocklist(&self, user: &str) -> Result<usize> {
        let sessions = self.ceph(&["tell", "mon.a", "sessions"])?;
        let sessions: serde_json::Value = serde_json::from_str(&sessions)?;
        let entity = format!("client.{user}");
        let mut lines = Vec::new();
        for session in sessions.as_array().into_iter().flatten() {
            let address = &session["addrs"]["addrvec"][0];
            if session["entity_name"] == entity.as_str()
                && let (Some(addr), Some(nonce)) =
                    (address["addr"].as_str(), address["nonce"].as_u64())
            {
                lines.push(format!("osd blocklist add {addr}/{nonce}"));
            }
        }
        self.script(&lines)?;
        Ok(lines.len())
    }

    pub fn start_mon(&self) -> Result<()> {
        *self.mon.lock().expect("no panic") = Some(self.daemon("ceph-mon", "a", &[])?);
        Ok(())
    }

    pub fn stop_mon(&self) -> Result<()> {
        stop(self.mon.lock().expect("no panic").take())
    }

    pub fn start_osd(&self, id: usize) -> Result<()> {
        let environment = if self.keeps_memory { &KEEPS_MEMORY[..] } else { &[] };
        let osd = self.daemon("ceph-osd", &id.to_string(), environment)?;
        self.osds.lock().expect("no panic")[id] = Some(osd);
        Ok(())
    }

    /// Ends an OSD in order; it comes back with its data.
    pub fn stop_osd(&self, id: usize) -> Result<()> {
        stop(self.osds.lock().expect("no panic")[id].take())
    }

    /// Kills an OSD. Its data survives on bluestore alone.
    pub fn kill_osd(&self, id: usize) -> Result<()> {
        self.osds.lock().expect("no panic")[id].take().context("the OSD does not run")?.kill()
    }

    /// Freezes an OSD: requests hang, connections stay. See [`Options::to_be_paused`].
    pub fn pause_osd(&self, id: usize) -> Result<()> {
        let osds = self.osds.lock().expect("no panic");
        let osd = osds[id].as_ref().context("the OSD does not run")?;
        osd.signal(libc::SIGSTOP)?;
        // The signal reaches the threads one after the other; until then requests are answered.
        osd.wait_until_stopped()
    }

    pub fn resume_osd(&self, id: usize) -> Result<()> {
        let osds = self.osds.lock().expect("no panic");
        osds[id].as_ref().context("the OSD does not run")?.signal(libc::SIGCONT)
    }

    /// Waits until a pool takes writes.
    pub fn wait_for_pool(&self, pool: &str) -> Result<()> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            let mut command = self.command("timeout");
            command.args(["20", "rados", "-c"]).arg(self.conf());
            command.args(["-p", pool, "put", "ready", "/dev/null"]);
            match process::output(command) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("pool {pool} takes no writes")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        if tool != "timeout" {
            command.arg("-c").arg(self.conf());
        }
        // The user's own settings have no business here.
        command.env_remove("CEPH_CONF").env_remove("CEPH_ARGS").env_remove("CEPH_KEYRING");
        command
    }

    fn run(&self, tool: &str, args: &[&str]) -> Result<String> {
        let mut command = self.command(tool);
        command.args(args);
        process::output(command)
    }

    fn daemon(&self, program: &str, id: &str, environment: &[(&str, &str)]) -> Result<Daemon> {
        let mut command = self.command(program);
        command.args(["-f", "-i", id]).envs(environment.iter().copied());
        let log = self.scratch.path().join("log").join(format!("{program}.{id}.out"));
        process::spawn(command, &log)
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        // Nothing is kept, so nothing need be stopped in order.
        let osds = self.osds.get_mut().map(std::mem::take).unwrap_or_default();
        let others = [self.mds.get_mut(), self.mgr.get_mut(), self.mon.get_mut()];
        let others = others.into_iter().filter_map(|slot| slot.ok().and_then(Option::take));
        for daemon in osds.into_iter().flatten().chain(others) {
            let _dead_already = daemon.kill();
        }
    }
}

fn stop(daemon: Option<Daemon>) -> Result<()> {
    daemon.context("the daemon does not run")?.stop()
}

fn url(conf: &Path, namespace: &str) -> String {
    format!("rados://data/{namespace}?conf={}&meta_pool=meta", conf.display())
}

/// The ceph.conf of a cluster that tests share; started by the first that asks.
pub fn shared_conf() -> Result<PathBuf> {
    static OWN: OnceLock<Result<Ceph, String>> = OnceLock::new();
    if let Some(conf) = std::env::var_os(CONF_ENV) {
        let conf = PathBuf::from(conf);
        if !conf.exists() {
            bail!("{CONF_ENV} names {}, which does not exist", conf.display());
        }
        return Ok(conf);
    }
    match OWN.get_or_init(|| Ceph::start().map_err(|error| format!("{error:#}"))) {
        Ok(ceph) => Ok(ceph.conf()),
        Err(error) => bail!("no Ceph cluster to test with: {error}"),
    }
}

/// A store of the test's own on the shared cluster. Fails the test when there can be none.
pub fn shared_url(namespace: &str) -> String {
    match shared_conf() {
        Ok(conf) => url(&conf, namespace),
        Err(error) => panic!("{error:#}"),
    }
}
