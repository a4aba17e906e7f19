//! `yadokari up` as a process: started, asked, killed, started again, and gone at the end.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{self, Said};
use crate::stores::StoreKind;
use crate::user::User;
use crate::wait;

/// A start, with the replay of what a crash left, takes at most this.
const START_MAX: Duration = Duration::from_secs(60);
/// A clean stop writes everything; at most this.
const STOP_MAX: Duration = Duration::from_secs(120);

/// How an instance is started.
#[derive(Debug, Default, Clone)]
pub struct Options {
    /// More arguments of `up`.
    pub arguments: Vec<String>,
    /// Started as `node`: the kernel asks for every lock, every open and every close.
    pub node: bool,
    /// More environment.
    pub environment: Vec<(String, String)>,
    /// A program and arguments that `exec` the daemon, whose command line comes behind them: a
    /// namespace of its own, for example. It must keep the process id.
    pub through: Vec<String>,
}

/// A running (or killed) instance with a data directory, a store and a mount of its own.
///
/// With `YADOKARI_TEST_PLAIN=1` in the environment there is no daemon and the mount is a plain
/// directory: that is how the tests themselves are checked, as they must pass there too.
#[derive(Debug)]
pub struct Instance {
    /// Where homes are mounted.
    pub mount: PathBuf,
    /// URL of the store.
    pub store: String,
    scratch: tempfile::TempDir,
    options: Options,
    child: Option<Child>,
}

impl Instance {
    /// Starts on a fresh store and waits for `ready`.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn start(kind: StoreKind) -> Result<Self> {
        Self::start_with(kind, Options::default())
    }

    /// Starts on a fresh store and waits for `ready`.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn start_with(kind: StoreKind, options: Options) -> Result<Self> {
        Self::start_at(|data| kind.fresh(data), options)
    }

    /// Starts on a store that is there, beside whoever uses it, and waits for `ready`.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn start_on(store: &str, options: Options) -> Result<Self> {
        Self::start_at(|_| Ok(store.to_owned()), options)
    }

    fn start_at(store: impl FnOnce(&Path) -> Result<String>, options: Options) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "these tests mount: run them as root");
        let scratch = tempfile::Builder::new().prefix("yadokari-test-").tempdir()?;
        // Every directory above a home must be searchable for its user.
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755))?;
        let mount = scratch.path().join("home");
        std::fs::create_dir(&mount)?;
        let data = scratch.path().join("data");
        let store = if is_plain() { String::new() } else { store(&data)? };
        let mut instance = Self { mount, store, scratch, options, child: None };
        instance.restart()?;
        Ok(instance)
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// A directory beside the mount, on the local disk, that lives as long as the instance.
    #[must_use]
    pub fn beside(&self) -> &Path {
        self.scratch.path()
    }

    /// A new user whose home on the mount was made.
    ///
    /// # Errors
    /// When useradd fails, or the home does not appear.
    pub fn user(&self) -> Result<User> {
        let user = User::create(&self.mount)?;
        if is_plain() {
            user.make_plain_home()?;
        } else {
            self.ok(&["home", "create", &user.name])?;
        }
        Ok(user)
    }

    /// A new user whose home is empty, without what new homes start with.
    ///
    /// # Errors
    /// As [`Instance::user`].
    pub fn bare_user(&self) -> Result<User> {
        let user = self.user()?;
        user.sh("rm -rf .[!.]*")?;
        Ok(user)
    }

    /// A copy of the program that plain users can run: the build directory may be closed to them.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn users_program(&self) -> Result<PathBuf> {
        let copy = self.beside().join("yadokari");
        if !copy.exists() {
            std::fs::copy(binary(), &copy).context("copying the program")?;
            std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(copy)
    }

    /// Starts it (again) and waits for `ready`.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn restart(&mut self) -> Result<()> {
        if is_plain() {
            return Ok(());
        }
        ensure!(self.child.is_none(), "it runs already");
        let log = std::fs::File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.start_command()?;
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        let mut command = process::through(&self.options.through, command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting yadokari up")?;
        let lines = BufReader::new(child.stdout.take().context("has a standard output")?).lines();
        self.child = Some(child);
        let (said, heard) = mpsc::channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| said.send(line))
        });
        match heard.recv_timeout(START_MAX) {
            Ok(line) if line.starts_with("ready") => Ok(()),
            Ok(line) => bail!("expected `ready …`, got {line:?}\n{}", self.log_tail()),
            Err(error) => {
                self.kill9();
                bail!("not ready within {START_MAX:?} ({error}):\n{}", self.log_tail())
            }
        }
    }

    fn start_command(&self) -> Result<Command> {
        if self.options.node {
            let file = self.beside().join("node.toml");
            let settings = format!("store = {:?}\nhome.mount = {:?}\n", self.store, self.mount);
            std::fs::write(&file, settings)?;
            let mut command = self.command(&["node", "--config"]);
            command.arg(file);
            return Ok(command);
        }
        let mut command = self.command(&["up", "--store", &self.store]);
        command.arg("--home").arg(&self.mount).args(&self.options.arguments);
        // A gateway is for those tests that ask for one.
        if !self.options.arguments.iter().any(|argument| argument == "--listen") {
            command.args(["--listen", "none"]);
        }
        Ok(command)
    }

    /// `kill -9`. The mount stays behind, dead.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP: it does nothing any more, and is not gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(rustix::process::Pid::from_raw).context("it runs")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// SIGTERM; wants exit code 0 and the mount gone.
    ///
    /// # Errors
    /// When it takes too long or ends otherwise.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.context("a process id")?, rustix::process::Signal::TERM)?;
        let ended = wait::until("the end after SIGTERM", STOP_MAX, || child.try_wait().transpose());
        let Ok(status) = ended else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("did not end within {STOP_MAX:?} after SIGTERM:\n{}", self.log_tail());
        };
        let status = status?;
        ensure!(status.success(), "ended with {status} after SIGTERM:\n{}", self.log_tail());
        ensure!(!is_mounted(&self.mount)?, "{} is still mounted", self.mount.display());
        Ok(())
    }

    /// The process id of the daemon.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `yadokari …` about this instance, as root.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        process::without_our_settings(&mut command);
        command.arg("--data").arg(self.data()).args(arguments);
        command
    }

    /// Runs `yadokari …` as root, whatever it says.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn run(&self, arguments: &[&str]) -> Result<Said> {
        process::run(&mut self.command(arguments))
    }

    /// Runs `yadokari …` as root and wants exit code 0; gives standard output.
    ///
    /// # Errors
    /// Any other end, with the end of the daemon's log.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        process::ok(&mut self.command(arguments))
            .with_context(|| format!("the daemon's log:\n{}", self.log_tail()))
    }

    /// Runs `yadokari … --json` as root; gives what it printed.
    ///
    /// # Errors
    /// Any end but 0, and anything that is no JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let out = self.ok(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&out).with_context(|| format!("{arguments:?} --json printed {out:?}"))
    }

    /// fsck of everything must find nothing.
    ///
    /// # Errors
    /// With what it found.
    pub fn fsck_is_clean(&self) -> Result<()> {
        if !is_plain() {
            self.ok(&["fsck"]).context("fsck found damage")?;
        }
        Ok(())
    }

    /// All that the daemon has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The end of the daemon's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        process::tail(&self.log())
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("log")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Shown with the failure of a test only.
        println!("the daemon's log ends with:\n{}", self.log_tail());
        self.kill9();
        // Lazily: a hung mount must not hang the test run.
        let mount = self.mount.display().to_string();
        let _ = process::sh(&format!(
            "grep -o ' {mount}[^ ]*' /proc/self/mounts | sort -r | xargs -r -n1 umount -l"
        ));
        if std::env::var_os("YADOKARI_TEST_KEEP").is_some() {
            self.scratch.disable_cleanup(true);
            eprintln!("kept {}", self.scratch.path().display());
        }
    }
}

/// The tests are checking themselves on a plain directory.
#[must_use]
pub fn is_plain() -> bool {
    std::env::var_os("YADOKARI_TEST_PLAIN").is_some()
}

/// Is something mounted exactly there?
///
/// # Errors
/// When the kernel does not tell.
pub fn is_mounted(dir: &Path) -> Result<bool> {
    let table = std::fs::read_to_string("/proc/self/mounts")?;
    let dir = dir.to_string_lossy();
    Ok(table.lines().any(|line| line.split(' ').nth(1) == Some(&dir)))
}

/// The program under test: `$YADOKARI_BIN`, else beside the test program.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("YADOKARI_BIN") {
        return path.into();
    }
    // target/PROFILE/deps/TEST -> target/PROFILE/yadokari
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors().nth(2).unwrap_or(Path::new("")).join("yadokari")
}
