//! What can be configured about callers: the section `auth` of the configuration file.
//!
//! ```toml
//! [auth]
//! admins = ["ada"]                 # may do everything
//! token_time = "5m"                # how long a token of /token is good
//!
//! [auth.names]                     # names that OCI cannot say, and what they are here
//! "Ada.Lovelace@example" = "ada"
//!
//! [auth.htpasswd]
//! file = "/etc/yadokari/htpasswd"  # bcrypt only: htpasswd -B
//!
//! [auth.ldap]
//! urls = ["ldaps://ldap.example"]
//! base = "ou=people,dc=example"
//!
//! [auth.pam]
//! service = "yadokari"             # /etc/pam.d/yadokari
//! ```
//!
//! An unknown key is an error that names the line and the nearest known key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use yadokari_catalog::OwnerName;

use super::secret::Secret;

/// The section `auth`. Without any of the three authorities nobody can log in with a password;
/// local callers and robots still work.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Users who may do everything, by their names here.
    pub admins: BTreeSet<OwnerName>,
    /// What this registry is called in tokens; by default whatever clients call it.
    pub service: Option<String>,
    /// How long a token of `/token` is good.
    #[serde(deserialize_with = "span")]
    pub token_time: Duration,
    /// How long a refresh token (`docker login`) is good.
    #[serde(deserialize_with = "span")]
    pub refresh_time: Duration,
    /// After so long a new key signs.
    #[serde(deserialize_with = "span")]
    pub key_time: Duration,
    /// Names as the authorities have them, and as they are here.
    pub names: BTreeMap<String, OwnerName>,
    /// Users in a file.
    pub htpasswd: Option<HtpasswdConfig>,
    /// Users in a directory.
    pub ldap: Option<LdapConfig>,
    /// Users of this machine, by whatever PAM asks.
    pub pam: Option<PamConfig>,
    /// Callers on the loopback listener.
    pub local: LocalConfig,
    /// Where clients reach the gateway from outside; the listener's own configuration sets it.
    #[serde(skip)]
    pub external_url: Option<String>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            admins: BTreeSet::new(),
            service: None,
            token_time: Duration::from_secs(300),
            refresh_time: Duration::from_secs(30 * DAY_S),
            key_time: Duration::from_secs(30 * DAY_S),
            names: BTreeMap::new(),
            htpasswd: None,
            ldap: None,
            pam: None,
            local: LocalConfig::default(),
            external_url: None,
        }
    }
}

const DAY_S: u64 = 86_400;

/// `[auth.htpasswd]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HtpasswdConfig {
    /// Lines `NAME:$2y$…`; read again when it changes.
    pub file: PathBuf,
    /// Authorities of one realm know the same people; see [`AuthConfig`].
    #[serde(default = "of_htpasswd")]
    pub realm: String,
}

/// `[auth.pam]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PamConfig {
    /// The file in `/etc/pam.d`.
    pub service: String,
    /// The same as local callers' by default: both are users of this machine.
    pub realm: String,
    /// An answer that takes longer is an outage.
    #[serde(deserialize_with = "span")]
    pub timeout: Duration,
}

impl Default for PamConfig {
    fn default() -> Self {
        Self {
            service: "yadokari".to_owned(),
            realm: SYSTEM_REALM.to_owned(),
            timeout: Duration::from_secs(10),
        }
    }
}

/// `[auth.ldap]`: a search for the user's entry, then a bind as that entry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LdapConfig {
    /// `ldap://` or `ldaps://`, tried in order.
    pub urls: Vec<String>,
    /// Ask for TLS on an `ldap://` connection, and refuse to go on without.
    #[serde(default)]
    pub starttls: bool,
    /// Send passwords over `ldap://` without StartTLS. For a directory on this machine only.
    #[serde(default)]
    pub insecure: bool,
    /// Certificates (PEM) that vouch for the server, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Who searches; nobody in particular without.
    #[serde(default)]
    pub bind_dn: Option<String>,
    /// Holds its password in the first line.
    #[serde(default)]
    pub bind_password_file: Option<PathBuf>,
    /// Its password, where a file is too much.
    #[serde(default)]
    pub bind_password: Option<Secret>,
    /// Where users are.
    pub base: String,
    /// Which entry is a user's; `{login}` stands for the name that was typed.
    #[serde(default = "user_filter")]
    pub filter: String,
    /// The attribute that holds the name.
    #[serde(default = "name_attribute")]
    pub name_attribute: String,
    /// The attribute that holds the numeric id, where there is one.
    #[serde(default = "uid_attribute")]
    pub uid_attribute: String,
    /// Where groups are; without it users have none.
    #[serde(default)]
    pub group_base: Option<String>,
    /// Which groups are a user's; `{login}` and `{dn}` stand for name and entry.
    #[serde(default = "group_filter")]
    pub group_filter: String,
    /// The attribute that holds a group's name.
    #[serde(default = "group_attribute")]
    pub group_attribute: String,
    /// Authorities of one realm know the same people.
    #[serde(default = "of_ldap")]
    pub realm: String,
    /// An answer that takes longer is an outage.
    #[serde(default = "ldap_timeout", deserialize_with = "span")]
    pub timeout: Duration,
}

/// `[auth.local]`: who counts on the loopback listener. The numbers are those of `login.defs`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalConfig {
    /// Lowest id of a person.
    pub uid_min: Option<u32>,
    /// Highest id of a person.
    pub uid_max: Option<u32>,
}

/// The realm of users of this machine, who are known by their uid.
pub const SYSTEM_REALM: &str = "system";

fn of_htpasswd() -> String {
    "htpasswd".to_owned()
}

fn of_ldap() -> String {
    "ldap".to_owned()
}

fn user_filter() -> String {
    "(&(objectClass=person)(uid={login}))".to_owned()
}

fn group_filter() -> String {
    "(|(&(objectClass=posixGroup)(memberUid={login}))(&(objectClass=groupOfNames)(member={dn})))"
        .to_owned()
}

fn name_attribute() -> String {
    "uid".to_owned()
}

fn uid_attribute() -> String {
    "uidNumber".to_owned()
}

fn group_attribute() -> String {
    "cn".to_owned()
}

fn ldap_timeout() -> Duration {
    Duration::from_secs(5)
}

/// What is wrong with a configuration, with file and line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// The line.
    pub line: usize,
    /// The problem.
    pub problem: String,
}

impl AuthConfig {
    /// Reads the section `auth` of a whole configuration file, whose other sections are left to
    /// others. `path` is for messages.
    ///
    /// # Errors
    /// File, line and what is wrong there.
    pub fn from_toml(path: &Path, text: &str) -> Result<Self, ConfigError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Whole {
            auth: AuthConfig,
        }
        let whole: Whole = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start).min(text.len());
            ConfigError {
                file: path.display().to_string(),
                line: text[..offset].matches('\n').count() + 1,
                problem: with_nearest(error.message()),
            }
        })?;
        Ok(whole.auth)
    }
}

/// Names the nearest known key in serde's words about an unknown one.
fn with_nearest(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else { return message.to_owned() };
    let Some((unknown, known)) = rest.split_once('`') else { return message.to_owned() };
    let candidates = known.split('`').skip(1).step_by(2);
    let near = candidates
        .map(|candidate| (strsim::damerau_levenshtein(unknown, candidate), candidate))
        .filter(|(distance, _)| *distance <= DISTANCE_MAX)
        .min_by_key(|(distance, _)| *distance);
    let hint = near.map(|(_, near)| format!(", did you mean `{near}`?")).unwrap_or_default();
    format!("unknown key `{unknown}`{hint}")
}

/// A name that differs more was not meant.
const DISTANCE_MAX: usize = 4;

/// `90`, `90s`, `5m`, `12h`, `30d`.
fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_span(&text).ok_or_else(|| {
        serde::de::Error::custom(format!("`{text}` is no time: write 90s, 5m, 12h or 30d"))
    })
}

/// A time with its unit; `None` for anything else, and for none at all.
#[must_use]
pub fn parse_span(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY_S,
        _ => return None,
    };
    let total = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (total > 0).then(|| Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AuthConfig, String> {
        AuthConfig::from_toml(Path::new("g.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn other_sections_are_left_to_others() {
        let config = read(
            "listen = 5\n[home]\nquota = 1\n[auth]\nadmins = [\"ada\"]\ntoken_time = \"2m\"\n\
             [auth.htpasswd]\nfile = \"/x\"\n[auth.pam]\n",
        )
        .unwrap();
        assert_eq!(config.token_time, Duration::from_secs(120));
        assert_eq!(config.htpasswd.unwrap().realm, "htpasswd");
        assert_eq!(config.pam.unwrap().service, "yadokari");
        assert_eq!(read("").unwrap().admins.len(), 0);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let error = read("[auth]\n\nadmin = []\n").unwrap_err();
        assert!(error.contains("g.toml:3") && error.contains("`admins`"), "{error}");
        let error = read("[auth.ldap]\nurl = []\nurls = []\nbase = \"\"\n").unwrap_err();
        assert!(error.contains("did you mean `urls`"), "{error}");
        let error = read("[auth.htpasswd]\nfile = \"x\"\nfrobnicate = 1\n").unwrap_err();
        assert!(error.ends_with("unknown key `frobnicate`"), "{error}");
    }

    #[test]
    fn a_wrong_value_says_what_is_right() {
        let error = read("[auth]\ntoken_time = \"5\"\n").unwrap_err();
        assert!(error.contains("5m"), "{error}");
        let error = read("[auth]\nadmins = [\"Ada\"]\n").unwrap_err();
        assert!(error.contains("g.toml:2"), "{error}");
    }

    #[test]
    fn secrets_of_the_configuration_do_not_show() {
        let text = "[auth.ldap]\nurls = []\nbase = \"\"\nbind_password = \"hunter2\"\n";
        assert!(!format!("{:?}", read(text).unwrap()).contains("hunter2"));
    }
}
