//! New credentials: a name and a password go to whoever knows users, within bounds.
//!
//! Authorities are asked in the order htpasswd, LDAP, PAM, until one knows the name; that one
//! decides. One that is out is passed over, and only when nobody else vouches for the user does
//! its outage become the answer. Each has a number of places; who waits too long for one is told
//! to try again. The same credentials that come many times at once are verified once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use yadokari_catalog::Clock;

use super::authority::{Account, Authority, Verdict, waste_time};
use super::caller::User;
use super::people::People;
use super::refusal::Refusal;
use super::remember::Mark;
use super::secret::Secret;
use super::slow::Slow;

/// How long a login waits for a place.
const PLACE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Places at authorities that wait for others; bcrypt has one per processor.
const PLACES: usize = 16;
/// Logins and passwords that are longer are nobody's, and cost nothing to refuse.
const LOGIN_BYTES_MAX: usize = 256;
const PASSWORD_BYTES_MAX: usize = 1024;

/// What came of a login.
#[derive(Debug)]
pub enum Outcome {
    /// It is that user, whom this authority knows by this fingerprint.
    Right(Arc<User>, Account),
    /// It is not, whoever it is.
    Wrong,
    /// It cannot be said, or not now.
    Refused(Refusal),
}

/// Everything that a login needs.
#[derive(Debug)]
pub struct Logins {
    authorities: Vec<Place>,
    slow: Slow,
    clock: Arc<dyn Clock>,
    running: Mutex<HashMap<Mark, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug)]
struct Place {
    authority: Arc<dyn Authority>,
    places: Semaphore,
}

impl Logins {
    pub fn new(authorities: Vec<Arc<dyn Authority>>, clock: Arc<dyn Clock>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let place = |authority: Arc<dyn Authority>| {
            let number = if authority.kind() == "htpasswd" { processors } else { PLACES };
            Place { authority, places: Semaphore::new(number) }
        };
        let authorities = authorities.into_iter().map(place).collect();
        Self { authorities, slow: Slow::default(), clock, running: Mutex::default() }
    }

    /// Holds off others with the same credentials until the guard is dropped; they find the
    /// result in memory then.
    pub async fn alone(self: &Arc<Self>, mark: Mark) -> Alone {
        let gate = Arc::clone(self.running.lock().entry(mark).or_default());
        let guard = gate.lock_owned().await;
        Alone { logins: Arc::clone(self), mark, guard: Some(guard) }
    }

    /// Verifies a name and a password.
    pub async fn verify(
        &self,
        people: &People,
        login: &str,
        password: &Secret,
        client: IpAddr,
    ) -> Outcome {
        if login.len() > LOGIN_BYTES_MAX || password.expose().len() > PASSWORD_BYTES_MAX {
            return Outcome::Wrong;
        }
        let attempt = match self.slow.attempt(&*self.clock, login, client) {
            Ok(attempt) => attempt,
            Err(wait) => {
                tracing::info!(%client, ?wait, "a login after too many failures was refused");
                return Outcome::Refused(Refusal::TooMany(wait));
            }
        };
        let outcome = self.ask_all(people, login, password, client).await;
        match &outcome {
            Outcome::Right(user, _) => {
                tracing::info!(user = %user.name, realm = user.identity.authority, %client, "login");
                attempt.right();
            }
            Outcome::Wrong => drop(attempt),
            Outcome::Refused(_) => attempt.unknown(),
        }
        outcome
    }

    /// For a robot's secret, whose failures count like a user's.
    pub fn attempt(
        &self,
        login: &str,
        client: IpAddr,
    ) -> Result<super::slow::Attempt<'_>, Refusal> {
        self.slow.attempt(&*self.clock, login, client).map_err(Refusal::TooMany)
    }

    /// The account as its authority has it now; `None` when it is gone.
    pub async fn account(&self, realm: &str, login: &str) -> Result<Option<Account>, Refusal> {
        for place in self.authorities.iter().filter(|p| p.authority.realm() == realm) {
            let _place = place.enter().await?;
            match place.authority.account(login).await {
                Ok(Some(account)) => return Ok(Some(account)),
                Ok(None) => {}
                Err(outage) => {
                    tracing::error!(%outage, "users cannot be verified");
                    return Err(Refusal::Unavailable);
                }
            }
        }
        Ok(None)
    }

    async fn ask_all(
        &self,
        people: &People,
        login: &str,
        password: &Secret,
        client: IpAddr,
    ) -> Outcome {
        let mut out = false;
        for place in &self.authorities {
            let _place = match place.enter().await {
                Ok(permit) => permit,
                Err(refusal) => return Outcome::Refused(refusal),
            };
            let authority = &place.authority;
            match authority.verify(login, password, client).await {
                Ok(Verdict::Unknown) => {}
                Ok(Verdict::Wrong) => {
                    let kind = authority.kind();
                    tracing::info!(login, authority = kind, %client, "a login failed");
                    return Outcome::Wrong;
                }
                Ok(Verdict::Right(account)) => {
                    return match people.user(authority.realm(), &account).await {
                        Ok(user) => Outcome::Right(user, account),
                        Err(refusal) => Outcome::Refused(refusal),
                    };
                }
                Err(outage) => {
                    tracing::error!(%outage, "users cannot be verified");
                    out = true;
                }
            }
        }
        if out {
            return Outcome::Refused(Refusal::Unavailable);
        }
        // What was typed as a name that nobody has may be a password: it is not logged.
        tracing::info!(%client, "a login failed: nobody knows such a user");
        waste_time(password).await;
        Outcome::Wrong
    }
}

impl Place {
    async fn enter(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Refusal> {
        match tokio::time::timeout(PLACE_WAIT_MAX, self.places.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => {
                let authority = self.authority.kind();
                tracing::warn!(authority, "too many logins wait to be verified");
                Err(Refusal::Unavailable)
            }
        }
    }
}

/// See [`Logins::alone`].
#[derive(Debug)]
pub struct Alone {
    logins: Arc<Logins>,
    mark: Mark,
    guard: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        let mut running = self.logins.running.lock();
        self.guard = None;
        // Nobody else holds it: the table's own and none that waits.
        if running.get(&self.mark).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            running.remove(&self.mark);
        }
    }
}
