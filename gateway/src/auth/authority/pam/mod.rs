//! Users of this machine, by whatever PAM asks.
//!
//! A PAM module may do anything, hanging included, so each login has a thread of its own and a
//! limited time; threads that hang keep their place in a small pool, and when all places hang,
//! PAM is out and says so at once. Only people get in: root and system users have no business in
//! a registry by password.

mod ffi;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, oneshot};

use super::{Account, Authority, Outage, Verdict};
use crate::auth::accounts::Accounts;
use crate::auth::config::PamConfig;
use crate::auth::secret::Secret;

/// Threads that may be in PAM at once, hanging ones included.
const THREADS_MAX: usize = 8;

/// The authority.
#[derive(Debug)]
pub struct Pam {
    service: String,
    realm: String,
    timeout: Duration,
    library: Arc<ffi::Library>,
    accounts: Arc<Accounts>,
    threads: Arc<Semaphore>,
}

impl Pam {
    /// Loads the library and looks for the service's file.
    ///
    /// # Errors
    /// What is missing on this machine.
    pub fn open(config: &PamConfig, accounts: Arc<Accounts>) -> Result<Self, String> {
        let service = config.service.clone();
        if service.is_empty() || service.contains('/') {
            return Err(format!("auth.pam.service: `{service}` is no name of a file"));
        }
        let folders = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d"];
        if !folders.iter().any(|folder| Path::new(folder).join(&service).exists()) {
            return Err(format!(
                "auth.pam: there is no /etc/pam.d/{service}; write it, for example\n\
                 auth    include common-auth\naccount include common-account"
            ));
        }
        Ok(Self {
            service,
            realm: config.realm.clone(),
            timeout: config.timeout,
            library: Arc::new(ffi::Library::load()?),
            accounts,
            threads: Arc::new(Semaphore::new(THREADS_MAX)),
        })
    }

    async fn ask(&self, login: &str, password: &Secret, from: IpAddr) -> Result<Answer, Outage> {
        let outage = |why: String| Outage { authority: "pam", why };
        let Ok(permit) = Arc::clone(&self.threads).try_acquire_owned() else {
            return Err(outage(format!("all {THREADS_MAX} threads wait for PAM's modules")));
        };
        let library = Arc::clone(&self.library);
        let (service, login) = (self.service.clone(), login.to_owned());
        let (password, from) = (password.clone(), from.to_string());
        let (tell, told) = oneshot::channel();
        let run = move || {
            let code = library.authenticate(&service, &login, &password, &from);
            let _nobody_waits_any_more = tell.send(code);
            drop(permit);
        };
        std::thread::Builder::new()
            .name("pam".to_owned())
            .spawn(run)
            .map_err(|error| outage(format!("no thread: {error}")))?;
        match tokio::time::timeout(self.timeout, told).await {
            Ok(Ok(code)) => judge(code).map_err(outage),
            Ok(Err(_)) => Err(outage("its thread ended".to_owned())),
            Err(_) => Err(outage(format!("no answer within {:?}", self.timeout))),
        }
    }

    async fn person(&self, login: &str) -> Result<Option<Account>, Outage> {
        let found = self.accounts.by_name(login).await;
        let found = found.map_err(|why| Outage { authority: "pam", why })?;
        Ok(found.map(|person| Account {
            login: person.name.clone(),
            uid: Some(person.uid),
            groups: person.groups.clone(),
            fingerprint: String::new(),
        }))
    }
}

#[async_trait]
impl Authority for Pam {
    fn kind(&self) -> &'static str {
        "pam"
    }

    fn realm(&self) -> &str {
        &self.realm
    }

    async fn verify(
        &self,
        login: &str,
        password: &Secret,
        from: IpAddr,
    ) -> Result<Verdict, Outage> {
        // PAM is not asked about names that cannot be users' here: its modules log and delay.
        let Some(account) = self.person(login).await? else { return Ok(Verdict::Unknown) };
        match self.ask(&account.login, password, from).await? {
            Answer::Right => Ok(Verdict::Right(account)),
            Answer::Wrong => Ok(Verdict::Wrong),
            Answer::Unknown => Ok(Verdict::Unknown),
        }
    }

    async fn account(&self, login: &str) -> Result<Option<Account>, Outage> {
        self.person(login).await
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Right,
    Wrong,
    Unknown,
}

/// What PAM's codes mean here; an error is an outage.
fn judge(code: Result<i32, String>) -> Result<Answer, String> {
    match code? {
        ffi::SUCCESS => Ok(Answer::Right),
        ffi::USER_UNKNOWN => Ok(Answer::Unknown),
        code if ffi::IS_OUTAGE.contains(&code) => Err(format!("PAM answers with code {code}")),
        _ => Ok(Answer::Wrong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart_by_what_follows_from_them() {
        assert_eq!(judge(Ok(0)), Ok(Answer::Right));
        assert_eq!(judge(Ok(7)), Ok(Answer::Wrong));
        assert_eq!(judge(Ok(13)), Ok(Answer::Wrong));
        assert_eq!(judge(Ok(10)), Ok(Answer::Unknown));
        assert!(judge(Ok(9)).is_err());
        assert!(judge(Err("no library".to_owned())).is_err());
    }

    #[test]
    fn a_service_without_a_file_is_refused_with_what_to_write() {
        let config = PamConfig { service: "no-such-service".to_owned(), ..PamConfig::default() };
        let accounts = Arc::new(Accounts::of_system(1000..=60_000));
        let error = Pam::open(&config, accounts).unwrap_err();
        assert!(error.contains("/etc/pam.d/no-such-service"), "{error}");
    }
}
