//! The management API over HTTP; [`crate::api`] lists it.
//!
//! Who manages is a person: a robot and a token with a ceiling may not. What a caller may not see
//! is answered as what is not there. Every change leaves a line in the audit log.

mod images;
mod owners;
mod robots;

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use yadokari_catalog::{OwnerName, Permission, RepoName};

use super::admission::Whose;
use super::answer;
use super::app::App;
use super::call::Call;
use super::failure::Failure;
use super::intake::{self, Intake};
use super::metrics::Operation;
use super::record::Note;
use super::request::Connection;
use crate::api::{PAGE_MAX, PREFIX, WhoAmI};
use crate::auth::{Ceiling, Proof, User, Who};
use crate::oci::{ApiError, Code};
use crate::registry::{About, explain};

/// A body of this API is short.
const BODY_BYTES_MAX: u64 = 64 << 10;

/// Whether a path belongs here.
#[must_use]
pub fn is_api(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// Answers one request below `/api/v1/`.
pub async fn answer(
    app: &Arc<App>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
    id: u64,
) -> (Response<Body>, Note) {
    let (parts, body) = request.into_parts();
    let method = parts.method.clone();
    let mut note = Note { operation: Operation::Api, ..Note::default() };
    let answered = operate(app, connection, parts, body, id, &mut note).await;
    let mut response = answered.unwrap_or_else(|failure| failure.answer(&method, id));
    let no_store = http::HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    (response, note)
}

async fn operate(
    app: &Arc<App>,
    connection: &Arc<Connection>,
    parts: Parts,
    body: Incoming,
    id: u64,
    note: &mut Note,
) -> Result<Response<Body>, Failure> {
    let is_change = !matches!(parts.method, Method::GET | Method::HEAD);
    if is_change && !is_json(&parts) {
        intake::drain(body, &app.config.limits);
        let text = "send a JSON body with Content-Type: application/json";
        return Err(ApiError::with(Code::Unsupported, text).status(415).into());
    }
    let call = Call::identify(app, connection, parts, id, &[]).await.map_err(|(f, _)| f)?;
    note.know(&call.caller);
    let whose = match call.caller.user() {
        Some(user) => Whose::Name(user.name.as_str().into()),
        None => Whose::Address(connection.client(&call.parts.headers)),
    };
    note.admitted = Some(app.admission.admit(whose).ok_or_else(|| {
        ApiError::new(Code::TooManyRequests).retry_after(std::time::Duration::from_secs(1))
    })?);
    let body = if is_change {
        let mut intake = Intake::new(body, app.budget.clone(), &app.config.limits, BODY_BYTES_MAX);
        intake.whole().await.map_err(|error| bad(error.to_string()))?
    } else {
        bytes::Bytes::new()
    };
    let path = call.parts.uri.path().strip_prefix(PREFIX).unwrap_or_default().to_owned();
    route(Arc::new(call), &path, body).await
}

async fn route(call: Arc<Call>, path: &str, body: bytes::Bytes) -> Result<Response<Body>, Failure> {
    let method = call.parts.method.clone();
    match (method.as_str(), path) {
        ("GET", "whoami") => who_am_i(&call),
        ("GET", "repositories") => images::repositories(&call).await,
        ("GET", "repository") => images::repository(&call).await,
        ("DELETE", "repository") => {
            super::v2::whole(images::remove_repository(call, parse(&body)?)).await
        }
        ("GET", "images") => images::images(&call).await,
        ("GET", "image") => images::image(&call).await,
        ("DELETE", "image") => super::v2::whole(images::remove_image(call, parse(&body)?)).await,
        ("GET", "rights") => owners::rights(&call).await,
        ("POST", "share") => super::v2::whole(owners::share(call, parse(&body)?)).await,
        ("GET", "usage") => owners::usage(&call).await,
        ("GET", "owners") => owners::owners(&call).await,
        ("PUT", "quota") => super::v2::whole(owners::set_quota(call, parse(&body)?)).await,
        ("POST", "owner") => super::v2::whole(owners::reassign(call, parse(&body)?)).await,
        ("POST", "group") => super::v2::whole(owners::group(call, parse(&body)?)).await,
        ("GET", "tokens") => robots::list(&call).await,
        ("POST", "tokens") => super::v2::whole(robots::create(call, parse(&body)?)).await,
        ("DELETE", "tokens") => super::v2::whole(robots::remove(call, parse(&body)?)).await,
        _ => Err(ApiError::with(Code::Unsupported, "there is nothing here").status(404).into()),
    }
}

fn who_am_i(call: &Call) -> Result<Response<Body>, Failure> {
    let user = call.caller.user();
    if user.is_none() && call.caller.proof == Proof::Nothing {
        return Err(call.challenge_anybody());
    }
    let proof = match call.caller.proof {
        Proof::Nothing => "none",
        Proof::Basic => "password",
        Proof::Bearer => "token",
        Proof::Kernel => "kernel",
    };
    ok(&WhoAmI {
        name: user.map(|_| call.caller.label()),
        admin: call.caller.is_admin(),
        groups: user.map(|user| user.groups.clone()).unwrap_or_default(),
        proof: proof.to_owned(),
    })
}

fn ok(value: &impl Serialize) -> Result<Response<Body>, Failure> {
    let body =
        serde_json::to_vec(value).map_err(|error| ApiError::new(Code::Unknown).because(error))?;
    Ok(answer::json(StatusCode::OK, body))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| bad(format!("the body: {error}")))
}

fn bad(message: String) -> Failure {
    ApiError::with(Code::Unsupported, message).status(400).into()
}

fn is_json(parts: &Parts) -> bool {
    let kind = super::request::text(&parts.headers, &header::CONTENT_TYPE).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim() == "application/json")
}

/// The person who manages.
fn person(call: &Call) -> Result<Arc<User>, Failure> {
    match (&call.caller.who, &call.caller.ceiling) {
        (Who::User(user), Ceiling::Everything) => Ok(Arc::clone(user)),
        (Who::Anonymous, _) => Err(call.challenge_anybody()),
        (Who::User(_) | Who::Robot(_), _) => {
            let text = "this takes a user's password or local login: tokens cannot manage";
            Err(ApiError::with(Code::Denied, text).into())
        }
    }
}

fn admin(call: &Call) -> Result<(), Failure> {
    person(call)?;
    if call.caller.is_admin() {
        return Ok(());
    }
    Err(ApiError::with(Code::Denied, "only administrators may do this").into())
}

/// A parameter of the query that must be there.
fn parameter<'a, T>(call: &'a Call, name: &str) -> Result<T, Failure>
where
    T: std::str::FromStr<Err: std::fmt::Display> + 'a,
{
    let query = call.query()?;
    let text = query.get(name).ok_or_else(|| bad(format!("the parameter `{name}` is missing")))?;
    text.parse().map_err(|error: T::Err| bad(format!("`{name}`: {error}")))
}

/// Where a page begins and how long it is.
fn page(call: &Call) -> Result<(Option<String>, usize), Failure> {
    let query = call.query()?;
    let number = query.get("n").map_or(Ok(PAGE_MAX), |text| {
        text.parse::<usize>().map_err(|_| bad("`n` is no number".to_owned()))
    })?;
    Ok((query.get("last").map(str::to_owned), number.clamp(1, PAGE_MAX)))
}

/// What the caller may do with a repository, below any ceiling.
async fn permission(call: &Call, repo: &RepoName) -> Result<Permission, Failure> {
    let found = call.app.registry.catalog.permission(&call.caller.for_catalog(), repo).await;
    let found = found.map_err(|error| explain(About::Repository, error))?;
    Ok(call.caller.capped(repo.as_str(), found))
}

/// Lets the caller through, or says no in a way that tells nothing.
async fn wants(call: &Call, repo: &RepoName, needed: Permission) -> Result<Permission, Failure> {
    let has = permission(call, repo).await?;
    if has >= needed {
        return Ok(has);
    }
    if call.caller.is_anonymous() {
        return Err(call.challenge_anybody());
    }
    if has == Permission::None {
        return Err(About::Repository.unknown().into());
    }
    Err(ApiError::new(Code::Denied).into())
}

/// Lets through who manages an owner's repositories.
async fn wants_owner(call: &Call, owner: &OwnerName) -> Result<(), Failure> {
    let person = person(call)?;
    if person.name == *owner || call.caller.is_admin() {
        return Ok(());
    }
    let whole = RepoName::of(owner, "").map_err(|error| bad(error.to_string()))?;
    wants(call, &whole, Permission::Manage).await?;
    Ok(())
}

/// The audit line of a change that is not about one repository.
fn audit(call: &Call, action: &'static str, what: &str) {
    tracing::info!(
        target: "yadokari::audit",
        request = call.id,
        who = %call.caller.label(),
        proof = ?call.caller.proof,
        from = %call.connection.client(&call.parts.headers),
        action,
        what,
    );
}
