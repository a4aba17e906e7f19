//! `/token`: where clients get the tokens that a challenge asks for.

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::answer;
use super::app::App;
use super::intake::Intake;
use super::request::Connection;
use crate::auth::{RequestFacts, TOKEN_FORM_BYTES_MAX};
use crate::oci::{ApiError, Code};

/// The path.
pub const PATH: &str = "/token";

/// Answers `GET /token?…` and `POST /token`.
pub async fn answer(
    app: &Arc<App>,
    connection: &Connection,
    request: Request<Incoming>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let facts = RequestFacts {
        connection: &connection.facts,
        client: connection.client(&parts.headers),
        version: parts.version,
        authority: parts.uri.authority().map(http::uri::Authority::as_str),
        headers: &parts.headers,
        needs: &[],
    };
    let response = match parts.method {
        Method::GET => app.auth.token_get(&facts, parts.uri.query().unwrap_or_default()).await,
        Method::POST => {
            let limits = &app.config.limits;
            let max = TOKEN_FORM_BYTES_MAX as u64;
            let mut intake = Intake::new(body, app.budget.clone(), limits, max);
            match intake.whole().await {
                Ok(form) => app.auth.token_post(&facts, &form).await,
                Err(error) => {
                    let error = ApiError::with(Code::Unsupported, error.to_string()).status(400);
                    return answer::error(&error);
                }
            }
        }
        _ => {
            let mut response = answer::empty(StatusCode::METHOD_NOT_ALLOWED);
            let allow = http::HeaderValue::from_static("GET, POST");
            response.headers_mut().insert(header::ALLOW, allow);
            return response;
        }
    };
    response.map(Body::from)
}
