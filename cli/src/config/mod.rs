//! Settings: one TOML file, then the environment (`YADOKARI_*`), then flags; the later wins.
//!
//! Every key has one name, one parser and one default ([`keys`]), whichever way it came in, and
//! a wrong value names where it stands.

mod file;
mod gateway;
mod keys;

pub use gateway::{GatewaySettings, parse_listen};

use std::path::{Path, PathBuf};
use std::time::Duration;

use yadokari_fs::home::Keep;

use crate::args::Global;
use crate::exit::Failure;
use crate::size::NO_LIMIT;

/// Under the data directory: the URL of the store that was served last.
const LAST_STORE: &str = "run/store";

/// The data directory of root's instance, which serves everybody on the machine.
pub const MACHINE_DATA: &str = "/var/lib/yadokari";
/// The file in the data directory that is read when no other is named.
const FILE_NAME: &str = "yadokari.toml";
/// Variables that are no settings of the daemon.
const OTHER_VARIABLES: [&str; 3] = ["YADOKARI_CONFIG", "YADOKARI_REGISTRY", "YADOKARI_TEST_HANG"];

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// State of this machine: socket, lock, caches, the embedded store.
    pub data: PathBuf,
    /// Where homes are kept; `None` is the embedded store under `data`.
    pub store: Option<String>,
    /// Filter of the log.
    pub log: String,
    /// Where homes are mounted; `None` is `data/home`.
    pub home_mount: Option<PathBuf>,
    /// Bytes that a new home may use.
    pub home_quota: u64,
    /// Inodes that a new home may hold.
    pub home_inodes: u64,
    /// Make a home when its user first looks it up.
    pub home_create: bool,
    /// What a new home starts with.
    pub home_skeleton: PathBuf,
    /// Snapshots of each home that the schedule keeps.
    pub snapshots_keep: Keep,
    /// Bytes of contents kept for reading.
    pub memory_data_cache: u64,
    /// Bytes of metadata blocks kept.
    pub memory_table_cache: u64,
    /// Bytes acknowledged and not yet stored.
    pub memory_dirty_max: u64,
    /// Inodes kept decoded.
    pub memory_inodes_max: u64,
    /// Names are stored at the latest after this.
    pub timing_commit: Duration,
    /// Data is stored at the latest after this.
    pub timing_flush: Duration,
    /// An operation that waits for the store fails after this.
    pub timing_store_timeout: Duration,
    /// A home that nothing used for so long is closed, which gives its memory back.
    pub timing_idle: Duration,
    /// Processors are kept from halting for so long after requests that came fast.
    pub timing_awake: Duration,
    /// The registry gateway.
    pub gateway: GatewaySettings,
    /// The configuration file that was read, for the section that the gateway reads itself.
    pub source: Option<(PathBuf, String)>,
}

impl Settings {
    fn defaults(data: PathBuf) -> Self {
        Self {
            data,
            store: None,
            log: "info,slatedb=warn".to_owned(),
            home_mount: None,
            home_quota: NO_LIMIT,
            home_inodes: NO_LIMIT,
            home_create: true,
            home_skeleton: PathBuf::from("/etc/skel"),
            snapshots_keep: Keep::default(),
            memory_data_cache: 40 << 20,
            memory_table_cache: 44 << 20,
            memory_dirty_max: 64 << 20,
            memory_inodes_max: 20_000,
            timing_commit: Duration::from_secs(1),
            timing_flush: Duration::from_secs(2),
            // An OSD that is away for a minute, and the way back, is waited for.
            timing_store_timeout: Duration::from_secs(90),
            timing_idle: Duration::from_secs(600),
            timing_awake: Duration::from_millis(4),
            gateway: GatewaySettings::default(),
            source: None,
        }
    }

    /// The store that is meant, as a URL.
    pub fn store_url(&self) -> String {
        let embedded = || format!("file://{}", self.embedded_store().display());
        self.store.clone().unwrap_or_else(embedded)
    }

    /// Where homes are kept when no store is named.
    pub fn embedded_store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// Notes which store this instance serves, for commands that come when it does not run.
    pub fn remember_store(&self) {
        let note = self.data.join(LAST_STORE);
        if let Err(error) = std::fs::write(&note, self.store_url()) {
            tracing::warn!(%error, note = %note.display(), "the store's URL was not noted");
        }
    }

    /// The same settings with the store that the instance served last, unless one is named.
    #[must_use]
    pub fn with_last_store(&self) -> Self {
        let mut settings = self.clone();
        if settings.store.is_none() {
            settings.store = std::fs::read_to_string(self.data.join(LAST_STORE)).ok();
        }
        settings
    }

    /// Where homes are mounted.
    pub fn mount_dir(&self) -> PathBuf {
        self.home_mount.clone().unwrap_or_else(|| self.data.join("home"))
    }

    /// Reads file, environment and the options of every command.
    ///
    /// # Errors
    /// `Usage` for a file that was named and is not there, an unknown key, a wrong value.
    pub fn load(global: &Global) -> anyhow::Result<Self> {
        let environment: Vec<(String, String)> = std::env::vars()
            .filter(|(name, _)| name.starts_with("YADOKARI_"))
            .filter(|(name, _)| !OTHER_VARIABLES.contains(&name.as_str()))
            .collect();
        Self::load_from(global, &environment)
    }

    fn load_from(global: &Global, environment: &[(String, String)]) -> anyhow::Result<Self> {
        let data = global.data.clone();
        let mut settings = Self::defaults(data.clone().unwrap_or_else(default_data));
        let implied = settings.data.join(FILE_NAME);
        let path = global.config.as_ref().unwrap_or(&implied);
        match std::fs::read_to_string(path) {
            Ok(text) => {
                file::apply(&mut settings, path, &text)?;
                settings.source = Some((path.clone(), text));
            }
            Err(error) if global.config.is_none() && is_absent(&error) => {}
            Err(error) => {
                let message = format!("configuration file {}: {error}", path.display());
                return Err(Failure::usage(message).into());
            }
        }
        for (name, value) in environment {
            keys::apply_variable(&mut settings, name, value)?;
        }
        if let Some(data) = data {
            settings.data = data;
        } else if global.config.is_none() && settings.data.join(FILE_NAME) != implied {
            let message = format!("{}: `data` names another directory", implied.display());
            let remedy = "name the file itself with --config, or the directory with --data";
            return Err(Failure::usage(message).remedy(remedy).into());
        }
        if let Some(log) = &global.log {
            settings.log.clone_from(log);
        }
        settings.data = absolute(&settings.data)?;
        settings.home_mount = settings.home_mount.as_deref().map(absolute).transpose()?;
        Ok(settings)
    }
}

/// A path that means the same from every directory.
pub fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("path {}: {error}", path.display())).into())
}

/// A data directory that a plain user may not look into holds no configuration for them.
fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
    )
}

/// `/var/lib/yadokari` for root, `$XDG_DATA_HOME/yadokari` for others.
fn default_data() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from(MACHINE_DATA);
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("yadokari")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)]) -> Result<Settings, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.toml");
        std::fs::write(&path, file).expect("written");
        let global = Global { data: Some("/d".into()), config: Some(path), log: None };
        let environment: Vec<_> =
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::load_from(&global, &environment).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let file = "store = \"memory:\"\n[home]\nquota = \"50G\"\ncreate = false\n";
        let settings = load(file, &[("YADOKARI_HOME_QUOTA", "1GB")]).expect("is right");
        assert_eq!(settings.home_quota, 1_000_000_000);
        assert_eq!(settings.store.as_deref(), Some("memory:"));
        assert!(!settings.home_create);
        assert_eq!(settings.data, Path::new("/d"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let error =
            load("store = \"memory:\"\n\n[home]\nquotta = \"50G\"\n", &[]).expect_err("bad");
        assert!(error.contains("node.toml:4"), "{error}");
        assert!(error.contains("`home.quotta`"), "{error}");
        assert!(error.contains("did you mean `home.quota`"), "{error}");
        let error = load("[hoem]\n", &[]).expect_err("bad");
        assert!(error.contains("node.toml:1") && error.contains("`home`"), "{error}");
        let error = load("", &[("YADOKARI_STOER", "x")]).expect_err("bad");
        assert!(error.contains("did you mean `YADOKARI_STORE`"), "{error}");
    }

    #[test]
    fn a_wrong_value_names_its_line_and_what_is_right() {
        let error = load("[home]\nquota = \"50Q\"\n", &[]).expect_err("bad");
        assert!(error.contains("node.toml:2") && error.contains("50GB"), "{error}");
        let error = load("[home]\ncreate = \"maybe\"\n", &[]).expect_err("bad");
        assert!(error.contains("true or false"), "{error}");
        let error = load("[timing]\ncommit = 5\n", &[]).expect_err("bad");
        assert!(error.contains("unit is missing"), "{error}");
        let error = load("store = \n", &[]).expect_err("bad");
        assert!(error.contains("node.toml:1"), "{error}");
    }
}
