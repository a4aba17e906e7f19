//! The one door: from the facts of a request to a caller.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use quick_cache::sync::Cache;
use yadokari_catalog::{Catalog, Seams};
use yadokari_store::Store;
use yadokari_store::head::HeadError;

use super::accounts::{self, Accounts};
use super::authority::{Authority, Directory, Htpasswd, Pam};
use super::caller::{Caller, Ceiling, Proof, Robot, User, Who};
use super::config::{AuthConfig, SYSTEM_REALM};
use super::facts::{ConnectionFacts, KernelIdentity, RequestFacts};
use super::keys::{Keys, Lifetimes};
use super::local::{LocalCallers, counts_as_local};
use super::login::{Logins, Outcome};
use super::people::{Names, People};
use super::refusal::{Challenge, ChallengeError, Refusal};
use super::remember::{Mark, Remembered};
use super::robots::{self, Admitted, NewRobot, RobotError, RobotInfo, Robots, SECRET_PREFIX};
use super::secret::Secret;
use super::token::{self, Claims, Use};

/// How long verified credentials and tokens count without a new look.
const REMEMBERED: Duration = Duration::from_secs(60);
/// The same for robots, who are gone within a second of their removal.
const ROBOT_REMEMBERED: Duration = Duration::from_millis(100);
/// How long a local user counts without a new look.
const LOCAL_REMEMBERED: Duration = Duration::from_secs(30);
/// Local users that are remembered.
const LOCAL_KEPT_MAX: usize = 10_000;
/// How often keys are looked at.
const KEYS_EVERY: Duration = Duration::from_secs(3600);

/// Why authentication cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The configuration names something that cannot be used.
    #[error("{0}")]
    Config(String),
    /// The store failed.
    #[error("the keys of tokens cannot be read or made: {0}")]
    Store(#[from] HeadError),
}

/// Knows who calls. One per process; shared by all connections.
#[derive(Debug)]
pub struct Authenticator {
    pub(super) config: AuthConfig,
    pub(super) seams: Seams,
    pub(super) keys: Keys,
    pub(super) people: People,
    pub(super) logins: Arc<Logins>,
    robots: Robots,
    remembered: Remembered,
    accounts: Arc<Accounts>,
    local: LocalCallers,
    local_users: Cache<u32, (Duration, Option<Arc<User>>)>,
}

impl Authenticator {
    /// Reads or makes the keys, looks at the files that the configuration names, and starts the
    /// task that rotates the keys; it ends with the last `Arc`.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn start(
        config: AuthConfig,
        store: &Store,
        catalog: &Catalog,
        seams: Seams,
    ) -> Result<Arc<Self>, AuthError> {
        let names: Arc<dyn Names> = Arc::new(catalog.clone());
        let this = Self::with_names(config, store, names, seams).await?;
        let weak = Arc::downgrade(&this);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(KEYS_EVERY).await;
                let Some(this) = weak.upgrade() else { return };
                if let Err(error) = this.keys.rotate().await {
                    tracing::warn!(%error, "the keys of tokens could not be looked after");
                }
            }
        });
        Ok(this)
    }

    pub(super) async fn with_names(
        config: AuthConfig,
        store: &Store,
        names: Arc<dyn Names>,
        seams: Seams,
    ) -> Result<Arc<Self>, AuthError> {
        let uids = accounts::people(config.local.uid_min, config.local.uid_max);
        let accounts = Arc::new(Accounts::of_system(uids));
        let authorities = authorities(&config, &accounts).map_err(AuthError::Config)?;
        let lifetimes =
            Lifetimes { signs: config.key_time, token: config.refresh_time.max(config.token_time) };
        let meta = || Arc::clone(&store.meta);
        Ok(Arc::new(Self {
            keys: Keys::open(meta(), seams.clone(), lifetimes).await?,
            people: People::new(&config, names, meta(), &seams),
            logins: Arc::new(Logins::new(authorities, Arc::clone(&seams.clock))),
            robots: Robots::new(meta(), seams.clone()),
            remembered: Remembered::new(&*seams.random),
            accounts,
            local: LocalCallers::default(),
            local_users: Cache::new(LOCAL_KEPT_MAX),
            config,
            seams,
        }))
    }

    /// Facts of a connection, to be made right after accept, before TLS or any other wait.
    /// `local_callers` is true only for the loopback listener that `up` makes.
    pub async fn accepted(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
        tls: bool,
        local_callers: bool,
    ) -> ConnectionFacts {
        let kernel = match local_callers {
            true => self.local.ask(peer, local).await,
            false => KernelIdentity::NotAsked,
        };
        ConnectionFacts { peer, local, tls, kernel }
    }

    /// Who calls. Credentials seen within the last minute cost about a microsecond.
    ///
    /// # Errors
    /// What to answer instead.
    pub async fn who(&self, facts: &RequestFacts<'_>) -> Result<Caller, Refusal> {
        let mut sent = facts.headers.get_all(AUTHORIZATION).iter();
        let value = match (sent.next(), sent.next()) {
            (None, _) => return Ok(self.unproved(facts).await),
            (Some(value), None) => value.as_bytes(),
            (Some(_), Some(_)) => return Err(self.wrong(facts)),
        };
        let mark = self.remembered.mark(value);
        if let Some(caller) = self.remembered.get(&mark, self.seams.clock.monotonic()) {
            return Ok(caller);
        }
        let (scheme, rest) = split_scheme(value).ok_or_else(|| self.wrong(facts))?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.bearer(facts, mark, rest).await;
        }
        let basic = scheme.eq_ignore_ascii_case("basic").then(|| basic(rest)).flatten();
        let (login, password) = basic.ok_or_else(|| self.wrong(facts))?;
        self.basic(facts, mark, &login, &password).await.map(|(caller, _)| caller)
    }

    /// The 401 for a caller who is known to be too little: `/v2/` without authorization, an
    /// anonymous caller who lacks a right, a token whose ceiling is too low.
    #[must_use]
    pub fn challenge(&self, facts: &RequestFacts<'_>, error: Option<ChallengeError>) -> Refusal {
        let (realm, service) = self.realm_and_service(facts);
        Refusal::Unauthorized(Box::new(Challenge {
            realm,
            service,
            scope: facts.needs.to_vec(),
            error,
            reason: match error {
                None => "authentication is required",
                Some(ChallengeError::InvalidToken) => "the credentials are wrong or expired",
                Some(ChallengeError::InsufficientScope) => "the token was made for something else",
            },
        }))
    }

    /// A robot of the caller's, who must be a person with no ceiling.
    ///
    /// # Errors
    /// `Invalid`, `Exists`, `Store`.
    pub async fn create_robot(
        &self,
        user: &User,
        new: NewRobot,
    ) -> Result<(RobotInfo, Secret), RobotError> {
        // Robots act for what is noted of their user.
        if self.people.note(user).await.is_err() {
            return Err(RobotError::Invalid("the user cannot be noted: try again later".into()));
        }
        self.robots.create(&user.name, new).await
    }

    /// The robots of all users.
    #[must_use]
    pub fn robots(&self) -> &Robots {
        &self.robots
    }

    /// Without authorization: whom the kernel names, or nobody.
    async fn unproved(&self, facts: &RequestFacts<'_>) -> Caller {
        let uid = match facts.connection.kernel {
            KernelIdentity::NotAsked | KernelIdentity::Unknown => return Caller::anonymous(),
            KernelIdentity::Owner(uid) => uid,
        };
        if !counts_as_local(facts) {
            return Caller::anonymous();
        }
        let user = match uid {
            0 => Some(self.people.root()),
            uid => self.local_user(uid).await,
        };
        let Some(user) = user else { return Caller::anonymous() };
        Caller { who: Who::User(user), ceiling: Ceiling::Everything, proof: Proof::Kernel }
    }

    async fn local_user(&self, uid: u32) -> Option<Arc<User>> {
        let now = self.seams.clock.monotonic();
        if let Some((until, user)) = self.local_users.get(&uid)
            && now < until
        {
            return user;
        }
        let user = self.find_local_user(uid).await;
        self.local_users.insert(uid, (now + LOCAL_REMEMBERED, user.clone()));
        user
    }

    async fn find_local_user(&self, uid: u32) -> Option<Arc<User>> {
        let person = match self.accounts.by_uid(uid).await {
            Ok(person) => person?,
            Err(why) => {
                tracing::warn!(uid, why, "a local caller stays anonymous");
                return None;
            }
        };
        let account = super::authority::Account {
            login: person.name.clone(),
            uid: Some(uid),
            groups: person.groups.clone(),
            fingerprint: String::new(),
        };
        match self.people.user(SYSTEM_REALM, &account).await {
            Ok(user) => Some(user),
            Err(why) => {
                tracing::warn!(uid, name = person.name, %why, "a local caller stays anonymous");
                None
            }
        }
    }

    /// Name and password; also what its authority knows of a user, for refresh tokens.
    pub(super) async fn basic(
        &self,
        facts: &RequestFacts<'_>,
        mark: Mark,
        login: &str,
        password: &Secret,
    ) -> Result<(Caller, Option<String>), Refusal> {
        if password.expose().starts_with(SECRET_PREFIX) {
            let caller = self.robot(facts, mark, password, Some(login), Proof::Basic).await?;
            return Ok((caller, None));
        }
        let _alone = self.logins.alone(mark).await;
        if let Some(caller) = self.remembered.get(&mark, self.seams.clock.monotonic()) {
            return Ok((caller, None));
        }
        match self.logins.verify(&self.people, login, password, facts.client).await {
            Outcome::Right(user, account) => {
                let who = Who::User(user);
                let caller = Caller { who, ceiling: Ceiling::Everything, proof: Proof::Basic };
                let until = self.seams.clock.monotonic() + REMEMBERED;
                self.remembered.put(mark, until, caller.clone());
                Ok((caller, Some(account.fingerprint)))
            }
            Outcome::Wrong => Err(self.wrong(facts)),
            Outcome::Refused(refusal) => Err(refusal),
        }
    }

    async fn robot(
        &self,
        facts: &RequestFacts<'_>,
        mark: Mark,
        secret: &Secret,
        login: Option<&str>,
        proof: Proof,
    ) -> Result<Caller, Refusal> {
        let _alone = self.logins.alone(mark).await;
        if let Some(caller) = self.remembered.get(&mark, self.seams.clock.monotonic()) {
            return Ok(caller);
        }
        let counted = robots::login_of(secret).map(|(user, name)| format!("{user}+{name}"));
        let attempt = self.logins.attempt(counted.as_deref().unwrap_or_default(), facts.client)?;
        let found = match self.robots.by_secret(secret).await {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "a robot's token cannot be verified");
                attempt.unknown();
                return Err(Refusal::Unavailable);
            }
        };
        let named_right = login.is_none() || login == counted.as_deref();
        let Some((name, robot)) = found.filter(|_| named_right) else {
            tracing::info!(client = %facts.client, robot = counted, "a robot's login failed");
            return Err(self.wrong(facts));
        };
        let user = self.people.any_noted(&name).await?.ok_or_else(|| self.wrong(facts))?;
        attempt.right();
        let until = self.robot_until(&robot);
        let ceiling = Ceiling::from(robot.scopes);
        let who = Who::Robot(Arc::new(Robot { name: robot.name, id: robot.id, user }));
        let caller = Caller { who, ceiling, proof };
        self.remembered.put(mark, until, caller.clone());
        Ok(caller)
    }

    async fn bearer(
        &self,
        facts: &RequestFacts<'_>,
        mark: Mark,
        text: &str,
    ) -> Result<Caller, Refusal> {
        if text.starts_with(SECRET_PREFIX) {
            let secret = Secret::new(text.to_owned());
            return self.robot(facts, mark, &secret, None, Proof::Bearer).await;
        }
        let claims = self.claims(text, Use::Access).await.ok_or_else(|| self.wrong(facts))?;
        let now = self.seams.clock.monotonic();
        let left = claims.expires.saturating_sub(self.now());
        let mut until = now + REMEMBERED.min(Duration::from_secs(left));
        let scopes = claims.scopes.unwrap_or_default();
        let caller = match claims.user {
            None => Caller { ceiling: scopes.into(), proof: Proof::Bearer, ..Caller::anonymous() },
            Some(subject) => {
                let user = self.people.noted(&subject.name, &subject.via).await?;
                let user = user.ok_or_else(|| self.wrong(facts))?;
                let (who, ceiling) = match &subject.robot {
                    None => (Who::User(user), scopes.into()),
                    Some(id) => {
                        let robot = self.robot_of_token(facts, &user, id).await?;
                        until = until.min(self.robot_until(&robot));
                        let ceiling = Ceiling::from(robot.scopes).and(&scopes);
                        let robot = Robot { name: robot.name, id: robot.id, user };
                        (Who::Robot(Arc::new(robot)), ceiling)
                    }
                };
                Caller { who, ceiling, proof: Proof::Bearer }
            }
        };
        self.remembered.put(mark, until, caller.clone());
        Ok(caller)
    }

    async fn robot_of_token(
        &self,
        facts: &RequestFacts<'_>,
        user: &User,
        id: &str,
    ) -> Result<Admitted, Refusal> {
        let found = self.robots.by_id(&user.name, id).await.map_err(|error| {
            tracing::error!(%error, "a robot's token cannot be verified");
            Refusal::Unavailable
        })?;
        found.ok_or_else(|| self.wrong(facts))
    }

    fn robot_until(&self, robot: &Admitted) -> Duration {
        let left = robot.expires.map_or(u64::MAX, |expires| expires.saturating_sub(self.now()));
        self.seams.clock.monotonic() + ROBOT_REMEMBERED.min(Duration::from_secs(left))
    }

    /// What a token says, if it is ours, for this use, and not over.
    pub(super) async fn claims(&self, text: &str, usage: Use) -> Option<Claims> {
        let key = self.keys.find(token::key_id(text)?).await?;
        let claims = token::open(text, &key.secret)?;
        (claims.usage == usage && self.now() < claims.expires).then_some(claims)
    }

    pub(super) fn mark(&self, login: &str, password: &Secret) -> Mark {
        // Different from every header, which has no NUL.
        let text = zeroize::Zeroizing::new(format!("{login}\0{}", password.expose()));
        self.remembered.mark(text.as_bytes())
    }

    pub(super) fn wrong(&self, facts: &RequestFacts<'_>) -> Refusal {
        self.challenge(facts, Some(ChallengeError::InvalidToken))
    }

    /// Seconds since 1970.
    pub(super) fn now(&self) -> u64 {
        self.seams.clock.wall_ms() / 1000
    }

    /// Where clients get tokens, and what they ask them for.
    fn realm_and_service(&self, facts: &RequestFacts<'_>) -> (String, String) {
        let local = facts.connection.kernel != KernelIdentity::NotAsked;
        let host = asked_host(facts);
        let base = match &self.config.external_url {
            Some(url) if !local => url.trim_end_matches('/').to_owned(),
            _ => format!("{}://{host}", if facts.connection.tls { "https" } else { "http" }),
        };
        let called = base.split_once("://").map_or(base.as_str(), |(_, rest)| rest);
        let called = called.split('/').next().unwrap_or_default();
        let service = self.config.service.clone().unwrap_or_else(|| called.to_owned());
        (format!("{base}/token"), service)
    }
}

/// The host that the client asked for, if it can stand in a header; else our own address.
fn asked_host(facts: &RequestFacts<'_>) -> String {
    let header = || facts.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let plain = |host: &&str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b".:-[]_".contains(&b);
        !host.is_empty() && host.len() <= 255 && host.bytes().all(known)
    };
    let asked = facts.authority.or_else(header).filter(plain);
    asked.map_or_else(|| facts.connection.local.to_string(), str::to_owned)
}

fn split_scheme(value: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    Some((scheme, rest.trim()))
}

/// Name and password of RFC 7617.
fn basic(text: &str) -> Option<(String, Secret)> {
    let bytes = zeroize::Zeroizing::new(STANDARD.decode(text).ok()?);
    let (login, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some((login.to_owned(), Secret::new(password.to_owned())))
}

fn authorities(
    config: &AuthConfig,
    accounts: &Arc<Accounts>,
) -> Result<Vec<Arc<dyn Authority>>, String> {
    let mut all: Vec<Arc<dyn Authority>> = Vec::new();
    if let Some(htpasswd) = &config.htpasswd {
        all.push(Arc::new(Htpasswd::open(htpasswd)?));
    }
    if let Some(ldap) = &config.ldap {
        all.push(Arc::new(Directory::new(ldap.clone())?));
    }
    if let Some(pam) = &config.pam {
        all.push(Arc::new(Pam::open(pam, Arc::clone(accounts))?));
    }
    Ok(all)
}
