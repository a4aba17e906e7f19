//! Robot tokens: scoped, expiring, listed, revoked.
//!
//! ```text
//! auth/robots/USER    {"robots":[{"name","id","hash","scopes","created","expires"}, …]}
//! secret              ykdr.BASE64URL(USER+NAME).64 hex digits
//! ```
//!
//! A robot acts for one user, below its scopes and below what that user may do at that moment,
//! and never manages anything. The secret is shown once; the store keeps its hash, which is
//! enough for 256 random bits. A robot that was removed is refused within a second by every
//! instance, with all tokens that were made for it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use yadokari_catalog::{OwnerName, Seams};
use yadokari_store::head::HeadError;
use yadokari_store::object_store::ObjectStore;

use super::scope::{Scope, Target};
use super::secret::Secret;
use super::shelf::Shelf;

/// What every secret begins with, for those who search files for secrets.
pub const SECRET_PREFIX: &str = "ykdr.";
/// Robots of one user: the head stays small.
pub const ROBOTS_MAX: usize = 100;
/// Scopes of one robot.
pub const SCOPES_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 64;
/// How long after its removal a robot may still get in.
const REVOKED_WITHIN: Duration = Duration::from_millis(800);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct NewRobot {
    /// Its name, unique among its user's: it logs in as `USER+NAME`.
    pub name: String,
    /// What it may do, of what its user may.
    pub scopes: Vec<Scope>,
    /// Seconds since 1970; never without.
    pub expires: Option<u64>,
}

/// A robot, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotInfo {
    /// Its name.
    pub name: String,
    /// What it logs in as: `USER+NAME`.
    pub login: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970.
    pub expires: Option<u64>,
    /// It is too old to be used.
    pub expired: bool,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum RobotError {
    /// Wrong as asked.
    #[error("{0}")]
    Invalid(String),
    /// There is one of that name.
    #[error("there is a token `{0}` already: remove it first, or choose another name")]
    Exists(String),
    /// There is none.
    #[error("there is no token `{0}`")]
    NotFound(String),
    /// The store failed.
    #[error("tokens could not be read or written: {0}")]
    Store(#[from] HeadError),
}

/// The robots of all users.
#[derive(Debug)]
pub struct Robots {
    shelf: Shelf<Record>,
    seams: Seams,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    robots: Vec<Stored>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    name: String,
    id: String,
    hash: String,
    scopes: Vec<Scope>,
    created: u64,
    expires: Option<u64>,
}

/// A robot that may come in.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Its name.
    pub name: String,
    /// What tokens call it; another robot of the same name has another.
    pub id: String,
    /// Its ceiling.
    pub scopes: Vec<Scope>,
    /// Seconds since 1970.
    pub expires: Option<u64>,
}

impl Robots {
    pub(super) fn new(store: Arc<dyn ObjectStore>, seams: Seams) -> Self {
        let shelf = Shelf::new(store, "auth/robots", Arc::clone(&seams.clock));
        Self { shelf, seams }
    }

    /// Makes a robot of a user and the secret that it logs in with.
    ///
    /// # Errors
    /// `Invalid`, `Exists`, `Store`.
    pub async fn create(
        &self,
        user: &OwnerName,
        new: NewRobot,
    ) -> Result<(RobotInfo, Secret), RobotError> {
        let now = self.now();
        check(&new, now)?;
        let random = &self.seams.random;
        let key = [random.bytes16(), random.bytes16()].concat();
        let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let id: String = random.bytes16()[..8].iter().map(|b| format!("{b:02x}")).collect();
        let login = URL_SAFE_NO_PAD.encode(format!("{user}+{}", new.name));
        let secret = Secret::new(format!("{SECRET_PREFIX}{login}.{key}"));
        let stored = Stored {
            name: new.name,
            id,
            hash: hash(&secret),
            scopes: new.scopes,
            created: now,
            expires: new.expires,
        };
        let info = info(user, &stored, now);
        let add = |record: &mut Record| {
            if record.robots.iter().any(|robot| robot.name == stored.name) {
                return Err(RobotError::Exists(stored.name.clone()));
            }
            if record.robots.len() >= ROBOTS_MAX {
                let text = format!("{user} has {ROBOTS_MAX} tokens already: remove some first");
                return Err(RobotError::Invalid(text));
            }
            record.robots.push(stored.clone());
            Ok(())
        };
        self.shelf.change(user, add).await?;
        Ok((info, secret))
    }

    /// A user's robots by name, expired ones included.
    ///
    /// # Errors
    /// `Store`.
    pub async fn list(&self, user: &OwnerName) -> Result<Vec<RobotInfo>, RobotError> {
        let record = self.shelf.get(user, Duration::ZERO).await?;
        let now = self.now();
        let mut all: Vec<_> = record.robots.iter().map(|robot| info(user, robot, now)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Removes a robot.
    ///
    /// # Errors
    /// `NotFound`, `Store`.
    pub async fn remove(&self, user: &OwnerName, name: &str) -> Result<(), RobotError> {
        let take = |record: &mut Record| {
            let before = record.robots.len();
            record.robots.retain(|robot| robot.name != name);
            if record.robots.len() == before {
                return Err(RobotError::NotFound(name.to_owned()));
            }
            Ok(())
        };
        self.shelf.change(user, take).await
    }

    /// The robot that a secret belongs to, with its user.
    pub(super) async fn by_secret(
        &self,
        secret: &Secret,
    ) -> Result<Option<(OwnerName, Admitted)>, HeadError> {
        let Some((user, name)) = login_of(secret) else { return Ok(None) };
        let record = self.shelf.get(&user, REVOKED_WITHIN).await?;
        let hash = blake3::hash(secret.expose().as_bytes());
        let found = record.robots.iter().find(|robot| {
            // blake3::Hash compares in constant time.
            robot.name == name && robot.hash.parse::<blake3::Hash>().is_ok_and(|h| h == hash)
        });
        Ok(found.filter(|robot| self.is_good(robot)).map(|robot| (user, admitted(robot))))
    }

    /// The robot that a token was made for, while it exists.
    pub(super) async fn by_id(
        &self,
        user: &OwnerName,
        id: &str,
    ) -> Result<Option<Admitted>, HeadError> {
        let record = self.shelf.get(user, REVOKED_WITHIN).await?;
        let found = record.robots.iter().find(|robot| robot.id == id && self.is_good(robot));
        Ok(found.map(admitted))
    }

    fn is_good(&self, robot: &Stored) -> bool {
        robot.expires.is_none_or(|expires| self.now() < expires)
    }

    fn now(&self) -> u64 {
        self.seams.clock.wall_ms() / 1000
    }
}

/// How a robot's secret names its user and itself.
pub fn login_of(secret: &Secret) -> Option<(OwnerName, String)> {
    let (login, _key) = secret.expose().strip_prefix(SECRET_PREFIX)?.split_once('.')?;
    let login = String::from_utf8(URL_SAFE_NO_PAD.decode(login).ok()?).ok()?;
    let (user, name) = login.split_once('+')?;
    Some((user.parse().ok()?, name.to_owned()))
}

fn check(new: &NewRobot, now: u64) -> Result<(), RobotError> {
    let invalid = |text: String| Err(RobotError::Invalid(text));
    if new.name.len() > NAME_BYTES_MAX || new.name.parse::<OwnerName>().is_err() {
        let name = &new.name;
        return invalid(format!(
            "`{name}` is no name for a token: lower-case letters, digits and . _ - between \
             them, at most {NAME_BYTES_MAX} bytes"
        ));
    }
    if new.scopes.is_empty() || new.scopes.len() > SCOPES_MAX {
        return invalid(format!("a token has 1 to {SCOPES_MAX} scopes"));
    }
    let nothing =
        |scope: &&Scope| scope.actions.is_empty() && !matches!(scope.target, Target::Catalog);
    if let Some(scope) = new.scopes.iter().find(nothing) {
        return invalid(format!("the scope `{scope}` allows nothing"));
    }
    if new.expires.is_some_and(|expires| expires <= now) {
        return invalid("the token would have expired already".to_owned());
    }
    Ok(())
}

fn hash(secret: &Secret) -> String {
    blake3::hash(secret.expose().as_bytes()).to_hex().to_string()
}

fn admitted(robot: &Stored) -> Admitted {
    Admitted {
        name: robot.name.clone(),
        id: robot.id.clone(),
        scopes: robot.scopes.clone(),
        expires: robot.expires,
    }
}

fn info(user: &OwnerName, robot: &Stored, now: u64) -> RobotInfo {
    RobotInfo {
        name: robot.name.clone(),
        login: format!("{user}+{}", robot.name),
        scopes: robot.scopes.clone(),
        created: robot.created,
        expires: robot.expires,
        expired: robot.expires.is_some_and(|expires| expires <= now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::testing::TestClock;
    use yadokari_store::Store;

    fn new(name: &str, expires: Option<u64>) -> NewRobot {
        let scopes = vec!["repository:ada/*:pull".parse().unwrap()];
        NewRobot { name: name.to_owned(), scopes, expires }
    }

    #[tokio::test]
    async fn a_robot_is_made_listed_and_removed_and_its_secret_is_not_stored() {
        let (store, clock) = (Store::memory(), TestClock::new());
        let robots = Robots::new(Arc::clone(&store.meta), clock.seams());
        let ada: OwnerName = "ada".parse().unwrap();
        let (info, secret) = robots.create(&ada, new("ci", None)).await.unwrap();
        assert_eq!(info.login, "ada+ci");
        let again = robots.create(&ada, new("ci", None)).await.unwrap_err();
        assert!(matches!(again, RobotError::Exists(_)));
        assert_eq!(robots.list(&ada).await.unwrap(), [info]);
        let path = yadokari_store::object_store::path::Path::from("auth/robots/ada");
        let head = yadokari_store::head::read_head(&*store.meta, &path);
        let text = String::from_utf8(head.await.unwrap().data.to_vec()).unwrap();
        assert!(!text.contains(secret.expose().rsplit_once('.').unwrap().1), "{text}");

        let (user, robot) = robots.by_secret(&secret).await.unwrap().expect("is right");
        assert_eq!((user.as_str(), robot.name.as_str()), ("ada", "ci"));
        let other = Robots::new(Arc::clone(&store.meta), clock.seams());
        assert!(other.by_id(&ada, &robot.id).await.unwrap().is_some());
        robots.remove(&ada, "ci").await.unwrap();
        assert!(robots.by_secret(&secret).await.unwrap().is_none());
        clock.advance(Duration::from_secs(1));
        assert!(other.by_id(&ada, &robot.id).await.unwrap().is_none(), "elsewhere, a second later");
        assert!(matches!(robots.remove(&ada, "ci").await, Err(RobotError::NotFound(_))));
    }

    #[tokio::test]
    async fn an_expired_or_altered_secret_is_nobodys() {
        let (store, clock) = (Store::memory(), TestClock::new());
        let robots = Robots::new(store.meta, clock.seams());
        let ada: OwnerName = "ada".parse().unwrap();
        let soon = clock.seams().clock.wall_ms() / 1000 + 10;
        let (_, secret) = robots.create(&ada, new("ci", Some(soon))).await.unwrap();
        let mut altered = secret.expose().to_owned();
        let last = altered.pop().unwrap();
        altered.push(if last == '0' { '1' } else { '0' });
        assert!(robots.by_secret(&Secret::new(altered)).await.unwrap().is_none());
        for text in ["", "ykdr.", "ykdr..", "ykdr.YWRh.00", "ykdr.!.00"] {
            assert!(robots.by_secret(&Secret::new(text.to_owned())).await.unwrap().is_none());
        }
        assert!(robots.by_secret(&secret).await.unwrap().is_some());
        clock.advance(Duration::from_secs(10));
        assert!(robots.by_secret(&secret).await.unwrap().is_none());
        assert!(robots.list(&ada).await.unwrap()[0].expired);
    }

    #[tokio::test]
    async fn what_cannot_be_a_robot_is_refused() {
        let robots = Robots::new(Store::memory().meta, TestClock::new().seams());
        let ada: OwnerName = "ada".parse().unwrap();
        for name in ["", "CI", "a+b", "a/b", "..", &"x".repeat(65)] {
            let refused = robots.create(&ada, new(name, None)).await.unwrap_err();
            assert!(matches!(refused, RobotError::Invalid(_)), "{name}");
        }
        assert!(robots.create(&ada, new("old", Some(1))).await.is_err());
        let none = NewRobot { name: "x".into(), scopes: Vec::new(), expires: None };
        assert!(robots.create(&ada, none).await.is_err());
    }
}
