//! `/token`, as Docker's token specification has it: by GET, and by POST as OAuth2.
//!
//! A token carries who asks and a ceiling: the scopes that were asked for, within the caller's
//! own ceiling. Whether the caller may do any of it is seen at each request, so asking for more
//! than one has is no error, and nothing can be probed here. A caller without credentials gets a
//! token too: of the user whom the kernel names, or of nobody.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde::Serialize;

use super::authenticator::Authenticator;
use super::caller::{Caller, Ceiling, Who};
use super::facts::RequestFacts;
use super::refusal::Refusal;
use super::scope::Scope;
use super::secret::Secret;
use super::token::{self, Claims, Subject, Use};

/// A form of `/token` that is longer is nonsense.
pub const TOKEN_FORM_BYTES_MAX: usize = 64 << 10;

/// What was asked for, whichever way.
#[derive(Debug, Default)]
struct Asked {
    service: Option<String>,
    scopes: Vec<String>,
    offline: bool,
    grant: Option<String>,
    login: Option<String>,
    password: Option<Secret>,
    refresh: Option<Secret>,
}

/// The answer, with the fields of both ways.
#[derive(Serialize)]
struct Answer<'a> {
    token: &'a str,
    access_token: &'a str,
    token_type: &'static str,
    scope: String,
    expires_in: u64,
    issued_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

/// Why no token is given.
enum No {
    Refused(Refusal),
    /// An error of OAuth2: its code and what it means.
    Bad(&'static str, &'static str),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Authenticator {
    /// `GET /token?…`: `query` is everything behind the question mark.
    pub async fn token_get(&self, facts: &RequestFacts<'_>, query: &str) -> Response<Bytes> {
        let asked = parse(query.as_bytes());
        let result = async {
            let caller = self.who(facts).await?;
            // Docker keeps the refresh token instead of the password: only for a password.
            let fingerprint = match (asked.offline, &caller.who) {
                (true, Who::User(user)) => {
                    let login = user.identity.login.as_deref().unwrap_or(user.name.as_str());
                    let account = self.logins.account(&user.identity.authority, login).await?;
                    account.map(|account| account.fingerprint)
                }
                _ => None,
            };
            self.give(&caller, &asked, fingerprint).await
        };
        answer(result.await)
    }

    /// `POST /token` with a form of at most [`TOKEN_FORM_BYTES_MAX`].
    pub async fn token_post(&self, facts: &RequestFacts<'_>, form: &[u8]) -> Response<Bytes> {
        if form.len() > TOKEN_FORM_BYTES_MAX {
            return answer(Err(No::Bad("invalid_request", "the form is too long")));
        }
        let asked = parse(form);
        let result = async {
            match asked.grant.as_deref() {
                Some("password") => self.by_password(facts, &asked).await,
                Some("refresh_token") => self.by_refresh(facts, &asked).await,
                Some(_) => Err(No::Bad(
                    "unsupported_grant_type",
                    "grant_type is password or refresh_token",
                )),
                None => Err(No::Bad("invalid_request", "grant_type is missing")),
            }
        };
        answer(result.await)
    }

    async fn by_password(&self, facts: &RequestFacts<'_>, asked: &Asked) -> Result<String, No> {
        let (Some(login), Some(password)) = (&asked.login, &asked.password) else {
            return Err(No::Bad("invalid_request", "username or password is missing"));
        };
        let mark = self.mark(login, password);
        let (caller, fingerprint) = self.basic(facts, mark, login, password).await?;
        let fingerprint = match (asked.offline, fingerprint, caller.user()) {
            (true, None, Some(user)) if matches!(caller.who, Who::User(_)) => {
                let login = user.identity.login.as_deref().unwrap_or(user.name.as_str());
                let account = self.logins.account(&user.identity.authority, login).await?;
                account.map(|account| account.fingerprint)
            }
            (true, fingerprint, _) => fingerprint,
            (false, ..) => None,
        };
        self.give(&caller, asked, fingerprint).await
    }

    async fn by_refresh(&self, facts: &RequestFacts<'_>, asked: &Asked) -> Result<String, No> {
        let Some(refresh) = &asked.refresh else {
            return Err(No::Bad("invalid_request", "refresh_token is missing"));
        };
        let wrong = || No::Refused(self.wrong(facts));
        let claims = self.claims(refresh.expose(), Use::Refresh).await.ok_or_else(wrong)?;
        let subject = claims.user.ok_or_else(wrong)?;
        let noted = self.people.noted(&subject.name, &subject.via).await?.ok_or_else(wrong)?;
        // The authority must still know the user, with the same password where that shows.
        let login = noted.identity.login.as_deref().unwrap_or(noted.name.as_str());
        let account = self.logins.account(&subject.via, login).await?.ok_or_else(wrong)?;
        if subject.fingerprint.as_deref() != Some(account.fingerprint.as_str()) {
            return Err(wrong());
        }
        let user = self.people.user(&subject.via, &account).await?;
        let proof = super::caller::Proof::Bearer;
        let caller = Caller { who: Who::User(user), ceiling: Ceiling::Everything, proof };
        self.give(&caller, asked, None).await
    }

    /// Makes the answer; a refresh token only with a fingerprint.
    async fn give(
        &self,
        caller: &Caller,
        asked: &Asked,
        fingerprint: Option<String>,
    ) -> Result<String, No> {
        if let Some(user) = caller.user() {
            self.people.note(user).await?;
        }
        let scopes = Scope::asked(asked.scopes.iter().map(String::as_str));
        let Ceiling::Scopes(granted) = caller.ceiling.and(&scopes) else {
            unreachable!("what was asked for is a list")
        };
        let subject = |fingerprint| {
            caller.user().map(|user| Subject {
                name: user.name.clone(),
                via: user.identity.authority.clone(),
                robot: match &caller.who {
                    Who::Robot(robot) => Some(robot.id.clone()),
                    Who::User(_) | Who::Anonymous => None,
                },
                fingerprint,
            })
        };
        let now = self.now();
        let expires_in = self.config.token_time.as_secs();
        let access = Claims {
            usage: Use::Access,
            user: subject(None),
            scopes: Some(granted.to_vec()),
            issued: now,
            expires: now + expires_in,
        };
        let refresh = fingerprint.map(|fingerprint| Claims {
            usage: Use::Refresh,
            user: subject(Some(fingerprint)),
            scopes: None,
            issued: now,
            expires: now + self.config.refresh_time.as_secs(),
        });
        let key = self.keys.current();
        let token = token::seal(&access, &key.id, &key.secret);
        let shown: Vec<String> = granted.iter().map(ToString::to_string).collect();
        let answer = Answer {
            token: &token,
            access_token: &token,
            token_type: "Bearer",
            scope: shown.join(" "),
            expires_in,
            issued_at: rfc3339(now),
            refresh_token: refresh.map(|claims| token::seal(&claims, &key.id, &key.secret)),
        };
        tracing::debug!(
            caller = caller.label(),
            service = asked.service,
            scope = answer.scope,
            "a token was given"
        );
        Ok(serde_json::to_string(&answer).expect("an answer is plain data"))
    }
}

fn parse(text: &[u8]) -> Asked {
    let mut asked = Asked::default();
    for (key, value) in form_urlencoded::parse(text) {
        let value = value.into_owned();
        match &*key {
            "service" => asked.service = Some(value),
            "scope" => asked.scopes.push(value),
            "offline_token" => asked.offline = value == "true",
            "access_type" => asked.offline = value == "offline",
            "grant_type" => asked.grant = Some(value),
            "username" => asked.login = Some(value),
            "password" => asked.password = Some(Secret::new(value)),
            "refresh_token" => asked.refresh = Some(Secret::new(value)),
            _ => {}
        }
    }
    asked
}

fn answer(result: Result<String, No>) -> Response<Bytes> {
    let (status, body) = match &result {
        Ok(body) => (StatusCode::OK, Bytes::from(body.clone())),
        Err(No::Refused(refusal)) => (refusal.status(), Bytes::from(refusal.body())),
        Err(No::Bad(code, why)) => {
            let body = serde_json::json!({ "error": code, "error_description": why });
            (StatusCode::BAD_REQUEST, Bytes::from(body.to_string()))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Err(No::Refused(refusal)) = &result {
        refusal.add_headers(headers);
        if status == StatusCode::UNAUTHORIZED {
            // Here it is a password that is wrong; a Bearer challenge would lead back to here.
            let basic = HeaderValue::from_static("Basic realm=\"yadokari\", charset=\"UTF-8\"");
            headers.insert(WWW_AUTHENTICATE, basic);
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let time = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
