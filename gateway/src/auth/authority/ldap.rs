//! Users in a directory: a search for the entry, then a bind as that entry.
//!
//! Each login takes a connection of its own, since the bind changes what a connection is. Every
//! step has the configured time together; a server that does not answer in it is an outage, and
//! the next URL is tried as long as time is left. A password never goes over a connection without
//! TLS unless the configuration says that it may.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchEntry, ldap_escape};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{Account, Authority, Outage, Verdict};
use crate::auth::config::LdapConfig;
use crate::auth::secret::Secret;

/// LDAP's code for a wrong password.
const INVALID_CREDENTIALS: u32 = 49;
/// A password that must be changed, a locked account: answers that are no outage.
const REFUSALS: [u32; 5] = [INVALID_CREDENTIALS, 19, 50, 53, 48];
/// More groups of one user than anybody administers by hand.
const GROUPS_MAX: usize = 2000;

/// The authority.
#[derive(Debug)]
pub struct Directory {
    config: LdapConfig,
    password: Option<Secret>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// What the search found.
struct Entry {
    dn: String,
    name: String,
    uid: Option<u32>,
}

impl Directory {
    /// Checks the configuration; the directory itself may be down.
    ///
    /// # Errors
    /// What cannot work, in words for whoever wrote it.
    pub fn new(config: LdapConfig) -> Result<Self, String> {
        if config.urls.is_empty() {
            return Err("auth.ldap.urls is empty: name at least one server".to_owned());
        }
        for url in &config.urls {
            let plain = url.starts_with("ldap://");
            if !plain && !url.starts_with("ldaps://") {
                return Err(format!("auth.ldap.urls: `{url}` is neither ldap:// nor ldaps://"));
            }
            if plain && !config.starttls && !config.insecure {
                return Err(format!(
                    "auth.ldap.urls: `{url}` would send passwords in the clear: use ldaps://, \
                     or starttls = true (or insecure = true for a server on this machine)"
                ));
            }
        }
        for (key, filter) in [("filter", &config.filter), ("group_filter", &config.group_filter)] {
            let sample = filter.replace("{login}", "x").replace("{dn}", "x");
            if ldap3::parse_filter(sample).is_err() {
                return Err(format!("auth.ldap.{key}: `{filter}` is no LDAP filter"));
            }
        }
        if !config.filter.contains("{login}") {
            return Err("auth.ldap.filter has no {login}: everybody would be the same".to_owned());
        }
        let password = bind_password(&config)?;
        let tls = config.ca_file.as_deref().map(client_config).transpose()?;
        Ok(Self { config, password, tls })
    }

    /// Runs `work` on the first server that answers, within the configured time.
    async fn within<T, F>(&self, work: impl Fn(Ldap) -> F) -> Result<T, Outage>
    where
        F: Future<Output = Result<T, LdapError>>,
    {
        let mut why = String::new();
        let all = async {
            for url in &self.config.urls {
                let tried = async {
                    let (connection, mut ldap) =
                        LdapConnAsync::with_settings(self.settings(), url).await?;
                    let driver = tokio::spawn(connection.drive());
                    let result = work(ldap.clone()).await;
                    let _closing =
                        tokio::time::timeout(Duration::from_secs(1), ldap.unbind()).await;
                    driver.abort();
                    result
                };
                match tried.await {
                    Ok(value) => return Some(value),
                    Err(error) => why = format!("{url}: {error}"),
                }
            }
            None
        };
        match tokio::time::timeout(self.config.timeout, all).await {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(Outage { authority: "ldap", why }),
            Err(_) => {
                let waited = self.config.timeout;
                Err(Outage { authority: "ldap", why: format!("no answer within {waited:?}") })
            }
        }
    }

    fn settings(&self) -> LdapConnSettings {
        let settings = LdapConnSettings::new()
            .set_conn_timeout(self.config.timeout)
            .set_starttls(self.config.starttls);
        match &self.tls {
            Some(tls) => settings.set_config(Arc::clone(tls)),
            None => settings,
        }
    }

    /// Becomes the one who searches.
    async fn bind_searcher(&self, ldap: &mut Ldap) -> Result<(), LdapError> {
        if let (Some(dn), Some(password)) = (&self.config.bind_dn, &self.password) {
            ldap.simple_bind(dn, password.expose()).await?.success()?;
        }
        Ok(())
    }

    /// The one entry of a login.
    async fn find(&self, ldap: &mut Ldap, login: &str) -> Result<Option<Entry>, LdapError> {
        let (name, uid) = (self.config.name_attribute.as_str(), self.config.uid_attribute.as_str());
        let filter = self.config.filter.replace("{login}", &ldap_escape(login));
        let found = ldap.search(&self.config.base, Scope::Subtree, &filter, [name, uid]).await?;
        let (entries, _) = found.success()?;
        let mut entries = entries.into_iter().filter(|entry| !entry.is_ref());
        let (Some(first), None) = (entries.next(), entries.next()) else { return Ok(None) };
        let entry = SearchEntry::construct(first);
        let value = |key: &str| {
            let same = |(k, _): &(&String, &Vec<String>)| k.eq_ignore_ascii_case(key);
            entry.attrs.iter().find(same).map(|(_, values)| values.as_slice()).unwrap_or_default()
        };
        // Directories compare without case: the name is the one in the entry, not the typed one.
        let typed = |v: &&String| v.eq_ignore_ascii_case(login);
        let Some(canonical) = value(name).iter().find(typed).or_else(|| value(name).first()) else {
            return Ok(None);
        };
        let uid = value(uid).first().and_then(|text| text.parse().ok());
        Ok(Some(Entry { dn: entry.dn.clone(), name: canonical.clone(), uid }))
    }

    async fn groups(&self, ldap: &mut Ldap, entry: &Entry) -> Result<Vec<String>, LdapError> {
        let Some(base) = &self.config.group_base else { return Ok(Vec::new()) };
        let filter = self.config.group_filter.replace("{login}", &ldap_escape(&*entry.name));
        let filter = filter.replace("{dn}", &ldap_escape(&*entry.dn));
        let attribute = self.config.group_attribute.as_str();
        let (found, _) =
            ldap.search(base, Scope::Subtree, &filter, [attribute]).await?.success()?;
        let entries = found.into_iter().filter(|entry| !entry.is_ref()).take(GROUPS_MAX);
        let names = entries.filter_map(|entry| {
            let entry = SearchEntry::construct(entry);
            let found = entry.attrs.into_iter().find(|(k, _)| k.eq_ignore_ascii_case(attribute));
            found.and_then(|(_, values)| values.into_iter().next())
        });
        Ok(names.collect())
    }

    async fn account_of(&self, ldap: &mut Ldap, entry: Entry) -> Result<Account, LdapError> {
        let groups = self.groups(ldap, &entry).await?.into_iter().collect();
        Ok(Account { login: entry.name, uid: entry.uid, groups, fingerprint: String::new() })
    }
}

#[async_trait]
impl Authority for Directory {
    fn kind(&self) -> &'static str {
        "ldap"
    }

    fn realm(&self) -> &str {
        &self.config.realm
    }

    async fn verify(
        &self,
        login: &str,
        password: &Secret,
        _from: IpAddr,
    ) -> Result<Verdict, Outage> {
        if login.is_empty() {
            return Ok(Verdict::Unknown);
        }
        self.within(|mut ldap| async move {
            self.bind_searcher(&mut ldap).await?;
            let Some(entry) = self.find(&mut ldap, login).await? else {
                return Ok(Verdict::Unknown);
            };
            // A bind without a password is no login: servers answer it with success.
            if password.expose().is_empty() {
                return Ok(Verdict::Wrong);
            }
            let bound = ldap.simple_bind(&entry.dn, password.expose()).await?;
            if REFUSALS.contains(&bound.rc) {
                return Ok(Verdict::Wrong);
            }
            bound.success()?;
            // Users may often not search: be the searcher again where there is one.
            self.bind_searcher(&mut ldap).await?;
            Ok(Verdict::Right(self.account_of(&mut ldap, entry).await?))
        })
        .await
    }

    async fn account(&self, login: &str) -> Result<Option<Account>, Outage> {
        self.within(|mut ldap| async move {
            self.bind_searcher(&mut ldap).await?;
            match self.find(&mut ldap, login).await? {
                None => Ok(None),
                Some(entry) => self.account_of(&mut ldap, entry).await.map(Some),
            }
        })
        .await
    }
}

fn bind_password(config: &LdapConfig) -> Result<Option<Secret>, String> {
    let from_file = config.bind_password_file.as_deref().map(|file| {
        let text = std::fs::read_to_string(file);
        text.map(|text| Secret::new(text.lines().next().unwrap_or_default().to_owned()))
            .map_err(|error| format!("auth.ldap.bind_password_file {}: {error}", file.display()))
    });
    let password = from_file.transpose()?.or_else(|| config.bind_password.clone());
    match (&config.bind_dn, &password) {
        (Some(_), None) => Err("auth.ldap.bind_dn needs bind_password_file".to_owned()),
        (None, Some(_)) => Err("auth.ldap has a password to bind with, but no bind_dn".to_owned()),
        (Some(_), Some(p)) if p.expose().is_empty() => {
            Err("auth.ldap: the password to bind with is empty".to_owned())
        }
        _ => Ok(password),
    }
}

/// TLS that believes only the certificates of one file.
fn client_config(file: &std::path::Path) -> Result<Arc<rustls::ClientConfig>, String> {
    let wrong = |why: String| format!("auth.ldap.ca_file {}: {why}", file.display());
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|e| wrong(e.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &str) -> LdapConfig {
        let text = format!("[auth.ldap]\nbase = \"dc=x\"\n{extra}\n");
        let path = std::path::Path::new("x.toml");
        crate::auth::AuthConfig::from_toml(path, &text).unwrap().ldap.unwrap()
    }

    #[test]
    fn a_configuration_that_cannot_work_or_is_not_safe_says_why() {
        for (extra, word) in [
            ("urls = []", "empty"),
            ("urls = [\"http://x\"]", "neither"),
            ("urls = [\"ldap://x\"]", "in the clear"),
            ("urls = [\"ldaps://x\"]\nfilter = \"(uid={login}\"", "no LDAP filter"),
            ("urls = [\"ldaps://x\"]\nfilter = \"(uid=x)\"", "{login}"),
            ("urls = [\"ldaps://x\"]\nbind_dn = \"cn=x\"", "bind_password_file"),
            ("urls = [\"ldaps://x\"]\nca_file = \"/nonexistent\"", "/nonexistent"),
        ] {
            let error = Directory::new(config(extra)).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        Directory::new(config("urls = [\"ldap://x\"]\nstarttls = true")).unwrap();
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_an_outage_in_time() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ldap://{}", silent.local_addr().unwrap());
        let text = format!("urls = [\"{url}\"]\ninsecure = true\ntimeout = \"1s\"");
        let directory = Directory::new(config(&text)).unwrap();
        let password = Secret::new("x".to_owned());
        let outage = directory.verify("ada", &password, [127, 0, 0, 1].into()).await.unwrap_err();
        assert!(outage.why.contains("1s"), "{outage}");
    }
}
