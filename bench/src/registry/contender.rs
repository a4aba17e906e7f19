//! Registries that are measured side by side, each as it is meant to be run for a department: no
//! access log, nothing beside it.
//!
//! Ours asks for a password, which it remembers for a minute; the others let everybody in, as
//! they would hash it anew with every request.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use yadokari_tests::ceph::Ceph;
use yadokari_tests::{process, wait};

use super::wire::{Body, Peer, Wire};

/// All that can be asked for, in the order of tables. What zot acknowledges is durable with
/// `commit` alone.
pub const NAMES: [&str; 5] = ["ours-file", "ours-rados", "distribution", "zot-commit", "zot"];
/// Whose everything is, who sees three repositories, who sees all.
const USERS: [&str; 3] = ["bench", "few", "boss"];
const PASSWORD: &str = "bench-secret";
const BCRYPT_COST: u32 = 4;
const START_MAX: Duration = Duration::from_secs(60);

/// A registry that runs.
pub trait Registry {
    /// As in tables.
    fn name(&self) -> &str;

    /// Where it is, as who pushes.
    fn peer(&self) -> Peer;

    /// A repository that who pushes may push to.
    fn repo(&self, name: &str) -> String;

    /// Its processes.
    fn pids(&self) -> Vec<u32>;

    /// Somebody who sees all repositories.
    fn peer_who_sees_all(&self) -> Option<Peer> {
        Some(self.peer())
    }

    /// Somebody who sees these repositories alone, where there is such a thing.
    ///
    /// # Errors
    /// What the registry said.
    fn peer_who_sees(&self, repos: &[String]) -> Result<Option<Peer>> {
        let _rights_are_unknown_to_it = repos;
        Ok(None)
    }

    /// Collects from now on without a pause between two rounds; false if it cannot.
    ///
    /// # Errors
    /// When it does not start again.
    fn collect_always(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// Does not collect from now on.
    ///
    /// # Errors
    /// When it does not start again.
    fn collect_never(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Starts one. `None` where the machine has no such program, which is then said in the results.
///
/// # Errors
/// What went wrong.
pub fn start(name: &str, beside: &Path, ceph: Option<&Ceph>) -> Result<Option<Box<dyn Registry>>> {
    let dir = beside.join(name);
    std::fs::create_dir_all(&dir)?;
    Ok(Some(match name {
        "ours-file" => {
            let store = format!("file://{}", dir.join("store").display());
            Box::new(Ours::start(name, &dir, store)?)
        }
        "ours-rados" => {
            let ceph = ceph.context("it needs the Ceph cluster")?;
            Box::new(Ours::start(name, &dir, ceph.url("registry"))?)
        }
        "distribution" => match found("docker-registry") {
            true => Box::new(other(name, &dir, distribution)?),
            false => return Ok(None),
        },
        "zot" | "zot-commit" => match found("zot") {
            true => Box::new(other(name, &dir, zot)?),
            false => return Ok(None),
        },
        other => bail!("there is no contender {other:?}; there are {}", NAMES.join(", ")),
    }))
}

fn found(program: &str) -> bool {
    process::sh(&format!("command -v {program}")).is_ok()
}

/// A child that ends with this.
#[derive(Debug)]
struct Server(Child);

impl Server {
    /// SIGTERM, and its end.
    fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.context("a pid")?, rustix::process::Signal::TERM)?;
        wait::until("the end of a registry", START_MAX, || self.0.try_wait().transpose())??;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The gateway.
#[derive(Debug)]
struct Ours {
    name: String,
    dir: PathBuf,
    store: String,
    address: SocketAddr,
    server: Option<Server>,
}

impl Ours {
    fn start(name: &str, dir: &Path, store: String) -> Result<Self> {
        let mut lines = String::new();
        for user in USERS {
            lines += &format!("{user}:{}\n", bcrypt::hash(PASSWORD, BCRYPT_COST)?);
        }
        std::fs::write(dir.join("htpasswd"), lines)?;
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let (name, dir) = (name.to_owned(), dir.to_owned());
        let mut ours = Self { name, dir, store, address, server: None };
        ours.run("none")?;
        Ok(ours)
    }

    fn run(&mut self, collect: &str) -> Result<()> {
        if let Some(server) = self.server.take() {
            server.stop()?;
        }
        let config = self.dir.join("gateway.toml");
        let text = format!(
            "store = {:?}\n[gateway]\nlisten = \"127.0.0.1:0\"\ncollect_interval = \"{collect}\"\n\
             [auth]\nadmins = [\"boss\"]\n[auth.htpasswd]\nfile = {:?}\n",
            self.store,
            self.dir.join("htpasswd").display().to_string()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(crate::contender::our_program());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("YADOKARI_") {
                command.env_remove(name);
            }
        }
        command.arg("--data").arg(self.dir.join("data"));
        command.arg("--config").arg(config).arg("gateway").stdin(Stdio::null());
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log"))?;
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn()?;
        let out = child.stdout.take().context("has a standard output")?;
        self.server = Some(Server(child));
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let address = line
            .strip_prefix("ready gateway=http://")
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        self.address = address.with_context(|| {
            let said = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            format!("it said {line:?}:\n{}", process::tail(&said))
        })?;
        Ok(())
    }

    fn as_user(&self, user: &str) -> Peer {
        let encoded = base64(format!("{user}:{PASSWORD}").as_bytes());
        Peer { address: self.address, authorization: Some(format!("Basic {encoded}")) }
    }
}

impl Registry for Ours {
    fn name(&self) -> &str {
        &self.name
    }

    fn peer(&self) -> Peer {
        self.as_user(USERS[0])
    }

    fn repo(&self, name: &str) -> String {
        format!("{}/{name}", USERS[0])
    }

    fn pids(&self) -> Vec<u32> {
        self.server.iter().map(|server| server.0.id()).collect()
    }

    fn peer_who_sees_all(&self) -> Option<Peer> {
        Some(self.as_user(USERS[2]))
    }

    fn peer_who_sees(&self, repos: &[String]) -> Result<Option<Peer>> {
        let mut wire = Wire::open(&self.peer())?;
        for repo in repos {
            let body = format!("{{\"target\": {repo:?}, \"read_users\": [{:?}]}}", USERS[1]);
            let body = Body::Bytes(body.as_bytes(), "application/json");
            wire.call("POST", "/api/v1/share", body)?.is(200)?;
        }
        Ok(Some(self.as_user(USERS[1])))
    }

    fn collect_always(&mut self) -> Result<bool> {
        self.run("1s")?;
        Ok(true)
    }

    fn collect_never(&mut self) -> Result<()> {
        self.run("none")
    }
}

/// A registry that lets everybody do everything.
#[derive(Debug)]
struct Other {
    name: String,
    address: SocketAddr,
    server: Server,
}

/// Starts one; `command` writes its configuration.
fn other(
    name: &str,
    dir: &Path,
    command: fn(&str, &Path, SocketAddr) -> Result<Command>,
) -> Result<Other> {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let mut command = command(name, dir, address)?;
    let log = std::fs::File::create(dir.join("log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let server = Server(command.spawn().with_context(|| format!("starting {command:?}"))?);
    wait::until("the registry", START_MAX, || TcpStream::connect(address).ok())
        .with_context(|| std::fs::read_to_string(dir.join("log")).unwrap_or_default())?;
    Ok(Other { name: name.to_owned(), address, server })
}

fn distribution(_name: &str, dir: &Path, address: SocketAddr) -> Result<Command> {
    let config = dir.join("config.yml");
    let root = dir.join("store");
    let text = format!(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n\
         storage:\n  cache:\n    blobdescriptor: inmemory\n  delete:\n    enabled: true\n  \
         filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
        root.display()
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(config);
    Ok(command)
}

fn zot(name: &str, dir: &Path, address: SocketAddr) -> Result<Command> {
    let config = dir.join("config.json");
    let text = serde_json::json!({
        "distSpecVersion": "1.1.0",
        "storage": {"rootDirectory": dir.join("store"), "gc": false, "commit": name != "zot"},
        "http": {"address": address.ip().to_string(), "port": address.port().to_string()},
        "log": {"level": "error"},
    });
    std::fs::write(&config, text.to_string())?;
    let mut command = Command::new("zot");
    command.arg("serve").arg(config);
    Ok(command)
}

impl Registry for Other {
    fn name(&self) -> &str {
        &self.name
    }

    fn peer(&self) -> Peer {
        Peer { address: self.address, authorization: None }
    }

    fn repo(&self, name: &str) -> String {
        format!("bench/{name}")
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.server.0.id()]
    }
}

/// As HTTP wants it, for a few bytes.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |n: usize| u32::from(three.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n)) as usize & 63];
            text.push(if n <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
