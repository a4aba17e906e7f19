//! The whole way from a request to a caller, with an authority that the test plays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use parking_lot::Mutex;
use yadokari_catalog::{Identity, OwnerName};
use yadokari_store::Store;

use super::people::{Claim, Names};
use super::testing::TestClock;
use super::*;

/// Names that the first who comes has, as the catalogue gives them at the first push.
#[derive(Debug, Default)]
struct FirstComes(Mutex<BTreeMap<OwnerName, Identity>>, AtomicUsize);

#[async_trait]
impl Names for FirstComes {
    async fn claim(&self, name: &OwnerName, identity: &Identity) -> Result<(), Claim> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let mut taken = self.0.lock();
        let mine = taken.entry(name.clone()).or_insert_with(|| identity.clone());
        if mine.authority == identity.authority {
            return Ok(());
        }
        Err(Claim::Clash(format!("of {}", mine.authority)))
    }

    async fn of_login(&self, _realm: &str, login: &str) -> Result<Option<OwnerName>, String> {
        Ok(login.parse().ok())
    }
}

struct World {
    clock: Arc<TestClock>,
    names: Arc<FirstComes>,
    store: Store,
    file: tempfile::NamedTempFile,
    config: String,
}

impl World {
    fn new(config: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let hash = bcrypt::hash("secret", 4).unwrap();
        let users = format!("ada:{hash}\nbob:{hash}\nroot:{hash}\nAda.L:{hash}\n");
        std::fs::write(file.path(), users).unwrap();
        let path = file.path().display();
        let config = format!("[auth]\n{config}\n[auth.htpasswd]\nfile = \"{path}\"\n");
        let (names, store) = (Arc::default(), Store::memory());
        Self { clock: TestClock::new(), names, store, file, config }
    }

    async fn start(&self) -> Arc<Authenticator> {
        let config = AuthConfig::from_toml(std::path::Path::new("x"), &self.config).unwrap();
        let names: Arc<dyn Names> = Arc::<FirstComes>::clone(&self.names);
        Authenticator::with_names(config, &self.store, names, self.clock.seams()).await.unwrap()
    }
}

fn headers(authorization: Option<&str>) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(HOST, HeaderValue::from_static("127.0.0.1:5000"));
    if let Some(text) = authorization {
        map.insert(AUTHORIZATION, HeaderValue::from_str(text).unwrap());
    }
    map
}

fn basic(login: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{login}:{password}")))
}

/// Runs `ask` with facts of a request over a connection of that kernel identity.
macro_rules! with_facts {
    ($kernel:expr, $headers:expr, |$facts:ident| $ask:expr) => {{
        let connection = ConnectionFacts {
            peer: "127.0.0.1:40000".parse().unwrap(),
            local: "127.0.0.1:5000".parse().unwrap(),
            tls: false,
            kernel: $kernel,
        };
        let headers = $headers;
        let $facts = RequestFacts {
            connection: &connection,
            client: connection.peer.ip(),
            version: Version::HTTP_11,
            authority: None,
            headers: &headers,
            needs: &[],
        };
        $ask.await
    }};
}

async fn who(auth: &Authenticator, authorization: Option<&str>) -> Result<Caller, Refusal> {
    with_facts!(KernelIdentity::NotAsked, headers(authorization), |facts| auth.who(&facts))
}

async fn who_local(
    auth: &Authenticator,
    uid: u32,
    authorization: Option<&str>,
) -> Result<Caller, Refusal> {
    with_facts!(KernelIdentity::Owner(uid), headers(authorization), |facts| auth.who(&facts))
}

async fn token(auth: &Authenticator, query: &str, with: Option<&str>) -> serde_json::Value {
    let response = with_facts!(KernelIdentity::NotAsked, headers(with), |facts| {
        auth.token_get(&facts, query)
    });
    assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    serde_json::from_slice(response.body()).unwrap()
}

async fn post(auth: &Authenticator, form: &str) -> (StatusCode, serde_json::Value) {
    let response = with_facts!(KernelIdentity::NotAsked, headers(None), |facts| {
        auth.token_post(&facts, form.as_bytes())
    });
    (response.status(), serde_json::from_slice(response.body()).unwrap())
}

fn status(result: Result<Caller, Refusal>) -> StatusCode {
    result.expect_err("is refused").status()
}

#[tokio::test]
async fn a_right_password_is_the_user_and_a_wrong_one_is_401() {
    let world = World::new("admins = [\"bob\"]");
    let auth = world.start().await;
    assert!(who(&auth, None).await.unwrap().is_anonymous());
    let ada = who(&auth, Some(&basic("ada", "secret"))).await.unwrap();
    assert_eq!((ada.label().as_str(), ada.is_admin(), ada.proof), ("ada", false, Proof::Basic));
    assert!(who(&auth, Some(&basic("bob", "secret"))).await.unwrap().is_admin());
    for wrong in [
        basic("ada", "Secret"),
        basic("nobody", "secret"),
        basic("", ""),
        "Basic !".to_owned(),
        "Basic".to_owned(),
        "Digest x".to_owned(),
        "Bearer x".to_owned(),
        "Bearer ".to_owned(),
    ] {
        assert_eq!(status(who(&auth, Some(&wrong)).await), StatusCode::UNAUTHORIZED, "{wrong}");
    }
}

#[tokio::test]
async fn authorization_that_is_sent_wins_over_what_the_kernel_says() {
    let world = World::new("");
    let auth = world.start().await;
    let root = who_local(&auth, 0, None).await.unwrap();
    assert_eq!((root.label().as_str(), root.is_admin()), ("root", false));
    let ada = who_local(&auth, 0, Some(&basic("ada", "secret"))).await.unwrap();
    assert_eq!(ada.label(), "ada");
    let wrong = who_local(&auth, 0, Some(&basic("ada", "wrong"))).await;
    assert_eq!(status(wrong), StatusCode::UNAUTHORIZED);
    let anonymous = token(&auth, "scope=repository:root/x:push", None).await;
    let bearer = format!("Bearer {}", anonymous["token"].as_str().unwrap());
    assert!(who_local(&auth, 0, Some(&bearer)).await.unwrap().is_anonymous());
}

#[tokio::test]
async fn two_authorization_headers_are_wrong() {
    let world = World::new("");
    let auth = world.start().await;
    let mut two = headers(Some(&basic("ada", "secret")));
    two.append(AUTHORIZATION, HeaderValue::from_str(&basic("ada", "secret")).unwrap());
    let result = with_facts!(KernelIdentity::NotAsked, two, |facts| auth.who(&facts));
    assert_eq!(status(result), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn nobody_logs_in_as_root_or_under_a_name_that_is_somebody_elses() {
    let world = World::new("");
    let auth = world.start().await;
    assert_eq!(status(who(&auth, Some(&basic("root", "secret"))).await), StatusCode::FORBIDDEN);
    let other = Identity { authority: "ldap".to_owned(), uid: None, login: None };
    world.names.claim(&"ada".parse().unwrap(), &other).await.unwrap();
    assert_eq!(status(who(&auth, Some(&basic("ada", "secret"))).await), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_name_that_oci_cannot_say_needs_a_mapping_and_the_mapped_name_is_nobody_elses() {
    let world = World::new("");
    let login = basic("Ada.L", "secret");
    let auth = world.start().await;
    assert_eq!(status(who(&auth, Some(&login)).await), StatusCode::FORBIDDEN);
    let world = World::new("names = { \"Ada.L\" = \"ada\" }");
    let auth = world.start().await;
    let caller = who(&auth, Some(&login)).await.unwrap();
    assert_eq!(caller.label(), "ada");
    assert_eq!(caller.user().unwrap().identity.login.as_deref(), Some("Ada.L"));
    assert_eq!(status(who(&auth, Some(&basic("ada", "secret"))).await), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn verified_credentials_are_remembered_for_a_minute_and_no_longer() {
    let world = World::new("");
    let auth = world.start().await;
    let ada = basic("ada", "secret");
    who(&auth, Some(&ada)).await.unwrap();
    std::fs::write(world.file.path(), "").unwrap();
    world.clock.advance(Duration::from_secs(59));
    who(&auth, Some(&ada)).await.expect("is remembered");
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(status(who(&auth, Some(&ada)).await), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn failures_are_slowed_but_not_those_who_are_in_already() {
    let world = World::new("");
    let auth = world.start().await;
    let ada = basic("ada", "secret");
    who(&auth, Some(&ada)).await.unwrap();
    let mut last = StatusCode::UNAUTHORIZED;
    for _ in 0..6 {
        last = status(who(&auth, Some(&basic("ada", "guess"))).await);
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    who(&auth, Some(&ada)).await.expect("is remembered");
}

#[tokio::test]
async fn a_token_carries_the_user_and_what_was_asked_for_and_ends() {
    let world = World::new("");
    let auth = world.start().await;
    let query = "service=x&scope=repository:ada/app:pull,push&scope=repository:bob/b:pull";
    let answer = token(&auth, query, Some(&basic("ada", "secret"))).await;
    assert_eq!(answer["expires_in"], 300);
    assert_eq!(answer["token"], answer["access_token"]);
    assert_eq!(answer["issued_at"], "2023-11-14T22:13:20Z");
    assert!(answer.get("refresh_token").is_none());
    let bearer = format!("Bearer {}", answer["token"].as_str().unwrap());
    let caller = who(&auth, Some(&bearer)).await.unwrap();
    assert_eq!((caller.label().as_str(), caller.is_admin()), ("ada", false));
    assert!(caller.ceiling_allows("ada/app", Action::Push));
    assert!(caller.ceiling_allows("bob/b", Action::Pull));
    assert!(!caller.ceiling_allows("bob/b", Action::Push));
    assert!(!caller.ceiling_allows("ada/other", Action::Pull));
    // Another instance, which has never seen it.
    assert_eq!(who(&*world.start().await, Some(&bearer)).await.unwrap().label(), "ada");
    world.clock.advance(Duration::from_secs(300));
    assert_eq!(status(who(&auth, Some(&bearer)).await), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_local_callers_token_is_the_local_users() {
    let world = World::new("");
    let auth = world.start().await;
    let response = with_facts!(KernelIdentity::Owner(0), headers(None), |facts| {
        auth.token_get(&facts, "scope=repository:root/app:push,pull&service=127.0.0.1:5000")
    });
    let answer: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    let bearer = format!("Bearer {}", answer["token"].as_str().unwrap());
    let caller = who(&auth, Some(&bearer)).await.unwrap();
    assert_eq!((caller.label().as_str(), caller.is_admin()), ("root", false));
    assert!(caller.ceiling_allows("root/app", Action::Push));
}

#[tokio::test]
async fn oauth2_by_password_and_by_refresh_token() {
    let world = World::new("");
    let auth = world.start().await;
    let scope = "scope=repository%3Aada%2Fapp%3Apull&service=x&client_id=docker";
    let form = format!("grant_type=password&username=ada&password=secret&{scope}");
    let (status, answer) = post(&auth, &form).await;
    assert_eq!((status, &answer["scope"]), (StatusCode::OK, &"repository:ada/app:pull".into()));
    assert!(answer.get("refresh_token").is_none());
    let (_, answer) = post(&auth, &format!("{form}&access_type=offline")).await;
    let refresh = answer["refresh_token"].as_str().expect("was asked for").to_owned();
    let form = format!("grant_type=refresh_token&refresh_token={refresh}&{scope}");
    let (status, answer) = post(&auth, &form).await;
    assert_eq!(status, StatusCode::OK);
    let bearer = format!("Bearer {}", answer["access_token"].as_str().unwrap());
    assert_eq!(who(&auth, Some(&bearer)).await.unwrap().label(), "ada");
    // It is no access token, and another password ends it.
    assert!(who(&auth, Some(&format!("Bearer {refresh}"))).await.is_err());
    let hash = bcrypt::hash("other", 4).unwrap();
    std::fs::write(world.file.path(), format!("ada:{hash}\n")).unwrap();
    assert_eq!(post(&auth, &form).await.0, StatusCode::UNAUTHORIZED);
    for (bad, status) in [
        ("", StatusCode::BAD_REQUEST),
        ("grant_type=password&username=ada", StatusCode::BAD_REQUEST),
        ("grant_type=magic", StatusCode::BAD_REQUEST),
        ("grant_type=refresh_token&refresh_token=x", StatusCode::UNAUTHORIZED),
        ("grant_type=password&username=ada&password=x", StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(post(&auth, bad).await.0, status, "{bad}");
    }
}

#[tokio::test]
async fn docker_gets_a_refresh_token_by_get_as_well() {
    let world = World::new("");
    let auth = world.start().await;
    let answer = token(&auth, "offline_token=true", Some(&basic("ada", "secret"))).await;
    assert!(answer["refresh_token"].as_str().is_some());
    assert!(token(&auth, "offline_token=true", None).await.get("refresh_token").is_none());
}

#[tokio::test]
async fn a_robot_acts_below_its_scopes_and_is_gone_when_removed() {
    let world = World::new("admins = [\"ada\"]");
    let auth = world.start().await;
    let ada = who(&auth, Some(&basic("ada", "secret"))).await.unwrap();
    let scopes = vec!["repository:ada/*:pull".parse().unwrap()];
    let new = NewRobot { name: "ci".to_owned(), scopes, expires: None };
    let (_, secret) = auth.create_robot(ada.user().unwrap(), new).await.unwrap();
    let credentials = basic("ada+ci", secret.expose());
    let robot = who(&auth, Some(&credentials)).await.unwrap();
    assert_eq!((robot.label().as_str(), robot.is_admin()), ("ada+ci", false));
    assert!(!robot.for_catalog().admin);
    assert!(robot.ceiling_allows("ada/app", Action::Pull));
    assert!(!robot.ceiling_allows("ada/app", Action::Push));
    assert!(!robot.ceiling_allows("bob/app", Action::Pull));
    let direct = format!("Bearer {}", secret.expose());
    assert_eq!(who(&auth, Some(&direct)).await.unwrap().label(), "ada+ci");
    let as_ada = basic("ada", secret.expose());
    assert_eq!(status(who(&auth, Some(&as_ada)).await), StatusCode::UNAUTHORIZED);

    let query = "scope=repository:ada/app:pull,push&scope=repository:bob/app:pull";
    let answer = token(&auth, query, Some(&credentials)).await;
    assert_eq!(answer["scope"], "repository:ada/app:pull");
    let bearer = format!("Bearer {}", answer["token"].as_str().unwrap());
    let other = world.start().await;
    assert_eq!(who(&other, Some(&bearer)).await.unwrap().label(), "ada+ci");

    auth.robots().remove(&"ada".parse().unwrap(), "ci").await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    for instance in [&auth, &other] {
        for sent in [&credentials, &direct, &bearer] {
            assert_eq!(status(who(instance, Some(sent)).await), StatusCode::UNAUTHORIZED);
        }
    }
}

/// Whoever is asked while it is out does not know.
#[derive(Debug, Default)]
struct Flaky {
    out: AtomicBool,
    asked: AtomicUsize,
}

#[async_trait]
impl authority::Authority for Flaky {
    fn kind(&self) -> &'static str {
        "ldap"
    }

    fn realm(&self) -> &str {
        "ldap"
    }

    async fn verify(
        &self,
        login: &str,
        _password: &Secret,
        _from: std::net::IpAddr,
    ) -> Result<authority::Verdict, authority::Outage> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
        if self.out.load(Ordering::Relaxed) {
            return Err(authority::Outage { authority: "ldap", why: "out".to_owned() });
        }
        let account = authority::Account {
            login: login.to_owned(),
            uid: Some(1001),
            groups: ["lab".to_owned()].into(),
            fingerprint: String::new(),
        };
        Ok(authority::Verdict::Right(account))
    }

    async fn account(&self, _login: &str) -> Result<Option<authority::Account>, authority::Outage> {
        Ok(None)
    }
}

async fn with_flaky(world: &World) -> (Arc<Flaky>, Arc<Authenticator>) {
    let flaky = Arc::new(Flaky::default());
    let mut auth = world.start().await;
    let inner = Arc::get_mut(&mut auth).unwrap();
    let all: Vec<Arc<dyn authority::Authority>> = vec![Arc::<Flaky>::clone(&flaky)];
    inner.logins = Arc::new(login::Logins::new(all, world.clock.seams().clock));
    (flaky, auth)
}

#[tokio::test]
async fn an_outage_touches_new_logins_alone() {
    let world = World::new("");
    let (flaky, auth) = with_flaky(&world).await;
    let (ada, bob) = (basic("ada", "x"), basic("bob", "x"));
    let query = "scope=repository:ada/app:pull";
    let answer = token(&auth, query, Some(&ada)).await;
    let bearer = format!("Bearer {}", answer["token"].as_str().unwrap());
    flaky.out.store(true, Ordering::Relaxed);
    who(&auth, Some(&ada)).await.expect("is remembered");
    let caller = who(&auth, Some(&bearer)).await.expect("is signed");
    assert!(caller.for_catalog().groups.contains("lab"));
    assert_eq!(status(who(&auth, Some(&bob)).await), StatusCode::SERVICE_UNAVAILABLE);
    for _ in 0..20 {
        let again = status(who(&auth, Some(&bob)).await);
        assert_eq!(again, StatusCode::SERVICE_UNAVAILABLE, "nobody is slowed for an outage");
    }
}

#[tokio::test]
async fn the_same_credentials_that_come_many_times_at_once_are_verified_once() {
    let world = World::new("");
    let (flaky, auth) = with_flaky(&world).await;
    let ada = basic("ada", "x");
    let all = (0..50).map(|_| who(&auth, Some(&ada)));
    for result in futures::future::join_all(all).await {
        result.unwrap();
    }
    assert_eq!(flaky.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_store_is_not_asked_for_what_is_remembered() {
    let world = World::new("");
    let auth = world.start().await;
    let ada = basic("ada", "secret");
    who(&auth, Some(&ada)).await.unwrap();
    let claims = world.names.1.load(Ordering::Relaxed);
    for _ in 0..1000 {
        who(&auth, Some(&ada)).await.unwrap();
    }
    assert_eq!(world.names.1.load(Ordering::Relaxed), claims);
}

#[tokio::test]
async fn a_challenge_names_where_the_client_came_to() {
    let world = World::new("");
    let auth = world.start().await;
    let refusal = with_facts!(KernelIdentity::NotAsked, headers(None), |facts| async {
        auth.challenge(&facts, None)
    });
    let mut map = HeaderMap::new();
    refusal.add_headers(&mut map);
    assert_eq!(
        map["www-authenticate"],
        "Bearer realm=\"http://127.0.0.1:5000/token\",service=\"127.0.0.1:5000\""
    );
    let mut strange = headers(None);
    strange.insert(HOST, HeaderValue::from_static("x\",realm=\"evil"));
    let refusal = with_facts!(KernelIdentity::NotAsked, strange, |facts| async {
        auth.challenge(&facts, None)
    });
    refusal.add_headers(&mut map);
    assert!(!map["www-authenticate"].to_str().unwrap().contains("evil"));
}
