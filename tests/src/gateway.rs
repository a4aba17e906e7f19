//! Two gateways over one store: two processes on Ceph, two instances in this process on files.
//!
//! Both read the same configuration: users in an htpasswd file, `boss` is an administrator. What
//! tests do goes through HTTP alone, to whichever of the two they like.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use yadokari_catalog::{Catalog, CollectOptions, CollectReport, Options as CatalogOptions};
use yadokari_gateway::auth::{AuthConfig, Authenticator};
use yadokari_gateway::config::{Config, Limits};
use yadokari_gateway::http::Gateway;
use yadokari_store::fault::{FaultControl, FaultPlan, FaultStore};
use yadokari_store::{Store, StoreOptions};

use crate::process;
use crate::stores::StoreKind;

/// Users of every registry; the password is the name and `-secret`.
pub const USERS: [&str; 4] = ["ada", "bob", "carol", "boss"];
/// The cheapest hash there is: tests log in often.
const BCRYPT_COST: u32 = 4;
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(60);
/// For how long a store that fails on purpose is tried again.
const FAULTY_RETRY: Duration = Duration::from_millis(200);

/// What differs from a usual gateway.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Bytes of every owner's images.
    pub quota: Option<u64>,
    /// Take manifests whose blobs are missing.
    pub sparse: bool,
    /// What clients call it.
    pub external_url: Option<String>,
    /// After how many seconds a client that does nothing is cut off.
    pub stall_seconds: Option<u64>,
    /// Requests of one caller at the same time.
    pub requests_max: Option<usize>,
    /// On which port a process listens; any when not said.
    pub listen: Option<u16>,
    /// More lines of the section `gateway` (of processes alone).
    pub lines: Vec<String>,
    /// Both gateways in this process whatever the store, the first with its store behind this;
    /// they give up on a store that fails after a moment.
    pub faults: Option<FaultControl>,
    /// The store on a disk of so many MiB that nothing else uses (files alone; needs root).
    pub disk_mib: Option<u32>,
}

/// A registry of two gateways.
#[derive(Debug)]
pub struct Registry {
    /// URL of the store.
    pub store: String,
    options: Options,
    instances: Vec<Option<Instance>>,
    runtime: Option<tokio::runtime::Runtime>,
    opened: Option<Store>,
    scratch: tempfile::TempDir,
}

#[derive(Debug)]
enum Instance {
    Here(Gateway, SocketAddr),
    Process(Child, SocketAddr),
}

impl Registry {
    /// Two gateways on a fresh store.
    ///
    /// # Errors
    /// When they do not start.
    pub fn start(kind: StoreKind) -> Result<Self> {
        Self::start_with(kind, Options::default())
    }

    /// The same, with other settings.
    ///
    /// # Errors
    /// When they do not start.
    pub fn start_with(kind: StoreKind, options: Options) -> Result<Self> {
        let mut registry = Self::prepare(kind, options)?;
        if kind == StoreKind::File || registry.options.faults.is_some() {
            registry.open_here()?;
        }
        registry.instances = vec![Some(registry.launch(0)?), Some(registry.launch(1)?)];
        Ok(registry)
    }

    /// One gateway as a process, whatever the store: to be killed.
    ///
    /// # Errors
    /// When it does not start.
    pub fn process(kind: StoreKind, options: Options) -> Result<Self> {
        let mut registry = Self::prepare(kind, options)?;
        registry.instances = vec![Some(registry.launch(0)?)];
        Ok(registry)
    }

    fn prepare(kind: StoreKind, options: Options) -> Result<Self> {
        let scratch = tempfile::Builder::new().prefix("yadokari-registry-").tempdir()?;
        let data = scratch.path().join("data");
        std::fs::create_dir(&data)?;
        if let Some(mib) = options.disk_mib {
            process::sh(&format!("mount -t tmpfs -o size={mib}m tmpfs {}", data.display()))?;
        }
        let store = kind.fresh(&data)?;
        let mut lines = String::new();
        for user in USERS {
            let hash = bcrypt::hash(password(user), BCRYPT_COST)?;
            lines += &format!("{user}:{hash}\n");
        }
        std::fs::write(scratch.path().join("htpasswd"), lines)?;
        let registry =
            Self { store, options, instances: Vec::new(), runtime: None, opened: None, scratch };
        std::fs::write(registry.config_path(), registry.toml())?;
        Ok(registry)
    }

    fn open_here(&mut self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        if let Some(path) = self.store.strip_prefix("file://") {
            std::fs::create_dir_all(path)?;
        }
        let url = self.store.parse().map_err(|error| anyhow::anyhow!("{error:?}"))?;
        self.opened = Some(runtime.block_on(Store::open(&url, &StoreOptions::default()))?);
        self.runtime = Some(runtime);
        Ok(())
    }

    /// Where the first gateway is.
    #[must_use]
    pub fn one(&self) -> SocketAddr {
        self.at(0)
    }

    /// Where the second gateway is.
    #[must_use]
    pub fn two(&self) -> SocketAddr {
        self.at(1)
    }

    /// Where a gateway is.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn at(&self, index: usize) -> SocketAddr {
        match self.instances[index].as_ref().expect("it runs") {
            Instance::Here(_, address) | Instance::Process(_, address) => *address,
        }
    }

    /// The process id of a gateway that is a process.
    #[must_use]
    pub fn pid(&self, index: usize) -> Option<u32> {
        match self.instances.get(index)?.as_ref()? {
            Instance::Here(..) => None,
            Instance::Process(child, _) => Some(child.id()),
        }
    }

    /// Files of this registry's clients.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Ends a gateway: `kill -9` for a process, as abruptly as it goes for one in this process.
    pub fn kill(&mut self, index: usize) {
        match self.instances[index].take() {
            Some(Instance::Process(mut child, _)) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Some(Instance::Here(gateway, _)) => drop(gateway),
            None => {}
        }
    }

    /// Starts a gateway that was ended.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        self.instances[index] = Some(self.launch(index)?);
        Ok(())
    }

    /// The first gateway is dead, with everything of it that was under way, and another one takes
    /// its place, whose faults the result controls.
    ///
    /// # Errors
    /// When it does not start.
    pub fn replace_faulty(&mut self) -> Result<FaultControl> {
        if let Some(control) = &self.options.faults {
            control.crash();
        }
        self.kill(0);
        let control = FaultControl::new(FaultPlan::none());
        self.options.faults = Some(control.clone());
        self.restart(0)?;
        Ok(control)
    }

    /// SIGTERM to a process; wants exit code 0.
    ///
    /// # Errors
    /// When it takes too long, or ends otherwise.
    pub fn stop(&mut self, index: usize) -> Result<()> {
        let Some(Instance::Process(mut child, _)) = self.instances[index].take() else {
            bail!("only a process can be stopped");
        };
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.context("a pid")?, rustix::process::Signal::TERM)?;
        let ended = crate::wait::until("the end", STOP_MAX, || child.try_wait().transpose());
        ensure!(ended??.success(), "it did not end well:\n{}", self.log_tail());
        Ok(())
    }

    /// One round of collection with these options, and no waiting between its two steps.
    ///
    /// # Errors
    /// What the store says; when the gateways are processes.
    pub fn collect(&self, options: &CollectOptions) -> Result<CollectReport> {
        let (Some(runtime), Some(store)) = (&self.runtime, &self.opened) else {
            bail!("only where the gateways are in this process");
        };
        let mut catalog_options = CatalogOptions::default();
        if self.options.disk_mib.is_some() {
            catalog_options.grace = Duration::ZERO;
        }
        let catalog = Catalog::new(store, catalog_options);
        Ok(runtime.block_on(catalog.collect(options))?)
    }

    /// Recounts ledgers and links; wants nothing wrong.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn is_consistent(&self) -> Result<()> {
        let check = |store: &Store| {
            let catalog = Catalog::new(store, CatalogOptions::default());
            async move { catalog.fsck(false, true).await }
        };
        let report = match (&self.runtime, &self.opened) {
            (Some(runtime), Some(store)) => runtime.block_on(check(store))?,
            _ => {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
                let url = self.store.parse().map_err(|error| anyhow::anyhow!("{error:?}"))?;
                let store = runtime.block_on(Store::open(&url, &StoreOptions::default()))?;
                let report = runtime.block_on(check(&store))?;
                // librados does not bear being torn down while its threads run.
                std::mem::forget(store);
                std::mem::forget(runtime);
                report
            }
        };
        let sparse = self.options.sparse;
        let wrong: Vec<_> = report.findings.iter().filter(|f| f.serious || !sparse).collect();
        ensure!(wrong.is_empty(), "{wrong:#?}");
        Ok(())
    }

    fn launch(&self, index: usize) -> Result<Instance> {
        match (&self.runtime, &self.opened) {
            (Some(runtime), Some(store)) => match self.options.faults.as_ref() {
                Some(control) if index == 0 => {
                    let wrap = |_, inner| {
                        let control = control.clone();
                        Arc::new(FaultStore::with_control(inner, control)) as Arc<_>
                    };
                    self.launch_here(runtime, &store.clone().wrap(wrap), Some(FAULTY_RETRY))
                }
                _ => self.launch_here(runtime, store, None),
            },
            _ => self.launch_process(index),
        }
    }

    fn launch_here(
        &self,
        runtime: &tokio::runtime::Runtime,
        store: &Store,
        retry_time: Option<Duration>,
    ) -> Result<Instance> {
        let mut options =
            CatalogOptions { default_quota: self.options.quota, ..CatalogOptions::default() };
        if let Some(time) = retry_time {
            options.retry_time = time;
        }
        let seams = options.seams.clone();
        let auth = AuthConfig::from_toml(&self.config_path(), &self.toml())?;
        let mut limits = Limits::default();
        if let Some(seconds) = self.options.stall_seconds {
            limits.stall_time = Duration::from_secs(seconds);
        }
        if let Some(requests) = self.options.requests_max {
            limits.requests_per_caller = requests;
        }
        let config = Config {
            listen: vec!["127.0.0.1:0".parse()?],
            sparse: self.options.sparse,
            external_url: self.options.external_url.clone(),
            limits,
            ..Config::default()
        };
        let gateway = runtime.block_on(async {
            let catalog = Catalog::new(store, options);
            let auth = Authenticator::start(auth, store, &catalog, seams).await?;
            anyhow::Ok(Gateway::start(config, catalog, Arc::clone(&auth)).await?)
        })?;
        let address = *gateway.addresses().first().context("it listens")?;
        Ok(Instance::Here(gateway, address))
    }

    fn launch_process(&self, index: usize) -> Result<Instance> {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(crate::instance::binary());
        process::without_our_settings(&mut command);
        command.arg("--data").arg(self.scratch.path().join(format!("gateway-{index}")));
        command.arg("--config").arg(self.config_path()).arg("gateway");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("starting yadokari gateway")?;
        let out = BufReader::new(child.stdout.take().context("has a standard output")?);
        let (said, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| said.send(line))
        });
        let line = heard.recv_timeout(START_MAX);
        let address = line.ok().and_then(|line| {
            let rest = line.strip_prefix("ready gateway=http")?;
            let rest = rest.strip_prefix("s").unwrap_or(rest).strip_prefix("://")?;
            rest.split(' ').next()?.parse().ok()
        });
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("the gateway did not start:\n{}", self.log_tail());
        };
        Ok(Instance::Process(child, address))
    }

    fn toml(&self) -> String {
        use std::fmt::Write;
        let options = &self.options;
        let (store, port) = (&self.store, options.listen.unwrap_or(0));
        let mut text = format!("store = {store:?}\n[gateway]\nlisten = \"127.0.0.1:{port}\"\n");
        let _ = writeln!(text, "sparse = {}", options.sparse);
        if let Some(bytes) = options.quota {
            let _ = writeln!(text, "quota = \"{bytes}\"");
        }
        if let Some(url) = &options.external_url {
            let _ = writeln!(text, "external_url = {url:?}");
        }
        if let Some(seconds) = options.stall_seconds {
            let _ = writeln!(text, "stall_time = \"{seconds}s\"");
        }
        if let Some(requests) = options.requests_max {
            let _ = writeln!(text, "requests_max = {requests}");
        }
        for line in &options.lines {
            text += line;
            text.push('\n');
        }
        let htpasswd = self.scratch.path().join("htpasswd");
        let _ = write!(
            text,
            "[auth]\nadmins = [\"boss\"]\n[auth.htpasswd]\nfile = {:?}\n",
            htpasswd.display().to_string()
        );
        text
    }

    fn config_path(&self) -> PathBuf {
        self.scratch.path().join("gateway.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("log")
    }

    /// The end of the processes' log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        process::tail(&std::fs::read_to_string(self.log_path()).unwrap_or_default())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        println!("the gateways' log ends with:\n{}", self.log_tail());
        for index in 0..self.instances.len() {
            self.kill(index);
        }
        if self.store.starts_with("rados://") {
            // librados does not bear being torn down while its threads run.
            std::mem::forget(self.opened.take());
            std::mem::forget(self.runtime.take());
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if self.options.disk_mib.is_some() {
            let data = self.scratch.path().join("data");
            let _ = process::sh(&format!("umount -l {}", data.display()));
        }
    }
}

/// A user's password.
#[must_use]
pub fn password(user: &str) -> String {
    format!("{user}-secret")
}
