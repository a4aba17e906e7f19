//! Robot tokens: made, listed and removed by their users, and removed by administrators.

use std::sync::Arc;

use axum::body::Body;
use http::Response;
use yadokari_catalog::OwnerName;

use super::{audit, bad, ok, person};
use crate::api::{Done, MadeToken, NewToken, Remove};
use crate::auth::{NewRobot, RobotError, Scope};
use crate::http::call::Call;
use crate::http::failure::Failure;
use crate::oci::{ApiError, Code};

fn said(error: RobotError) -> Failure {
    let message = error.to_string();
    match error {
        RobotError::Invalid(_) => bad(message),
        RobotError::Exists(_) => ApiError::with(Code::Denied, message).status(409).into(),
        RobotError::NotFound(_) => ApiError::with(Code::NameUnknown, message).into(),
        RobotError::Store(_) => ApiError::new(Code::Unavailable).because(error).into(),
    }
}

/// Whose tokens: the caller's, or for administrators anybody's.
fn whose(call: &Call, named: Option<OwnerName>) -> Result<OwnerName, Failure> {
    let person = person(call)?;
    match named {
        None => Ok(person.name.clone()),
        Some(user) if user == person.name || call.caller.is_admin() => Ok(user),
        Some(_) => Err(ApiError::new(Code::Denied).into()),
    }
}

/// Lists them.
pub async fn list(call: &Call) -> Result<Response<Body>, Failure> {
    let query = call.query()?;
    let named = query.get("user").map(str::parse).transpose();
    let user = whose(call, named.map_err(|error| bad(format!("`user`: {error}")))?)?;
    ok(&call.app.auth.robots().list(&user).await.map_err(said)?)
}

/// Makes one.
pub async fn create(call: Arc<Call>, new: NewToken) -> Result<Response<Body>, Failure> {
    let person = person(&call)?;
    let scopes = new.scopes.iter().map(|text| {
        Scope::with_pattern(text).map_err(|error| bad(format!("scope `{text}`: {error}")))
    });
    let scopes = scopes.collect::<Result<Vec<_>, _>>()?;
    let robot = NewRobot { name: new.name, scopes, expires: new.expires };
    let (info, secret) = call.app.auth.create_robot(&person, robot).await.map_err(said)?;
    audit(&call, "token", &info.login);
    ok(&MadeToken { info, secret: secret.expose().to_owned() })
}

/// Removes one.
pub async fn remove(call: Arc<Call>, remove: Remove) -> Result<Response<Body>, Failure> {
    let user = whose(&call, remove.user)?;
    call.app.auth.robots().remove(&user, &remove.name).await.map_err(said)?;
    let login = format!("{user}+{}", remove.name);
    audit(&call, "remove-token", &login);
    ok(&Done { removed: vec![login] })
}
