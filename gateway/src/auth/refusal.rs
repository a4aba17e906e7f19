//! Why a request is not even looked at: who calls is wrong, or cannot be known now.
//!
//! Each refusal has a status, a code of the OCI specification and a text for the client. What
//! operators should know beyond that was logged where it happened.

use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};

use super::scope::Scope;

/// Why nobody is let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Authorization is missing, wrong, expired or has too little scope.
    #[error("{}", .0.reason)]
    Unauthorized(Box<Challenge>),
    /// Right, but not to be let in: a name that belongs to somebody else, say.
    #[error("{0}")]
    Denied(String),
    /// Too many failed logins; try again after so long.
    #[error("too many failed logins: try again in {} s", .0.as_secs().max(1))]
    TooMany(Duration),
    /// Whoever knows users does not answer; nobody can be logged in now.
    #[error("users cannot be verified at the moment: try again later")]
    Unavailable,
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Denied(_) => StatusCode::FORBIDDEN,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The code of the distribution specification.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized(_) => "UNAUTHORIZED",
            Self::Denied(_) => "DENIED",
            Self::TooMany(_) => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
        }
    }

    /// Adds what belongs into the answer's headers: the challenge, when to try again.
    pub fn add_headers(&self, headers: &mut HeaderMap) {
        match self {
            Self::Unauthorized(challenge) => {
                headers.insert(header::WWW_AUTHENTICATE, challenge.header_value());
            }
            Self::TooMany(after) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
            }
            Self::Unavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
            }
            Self::Denied(_) => {}
        }
    }

    /// The body of an answer, in the form of the distribution specification.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let message = self.to_string();
        let error = serde_json::json!({ "code": self.code(), "message": message });
        serde_json::json!({ "errors": [error] }).to_string().into_bytes()
    }
}

/// An outage of a directory service is rarely over sooner.
const RETRY_AFTER_S: u64 = 5;

/// What is asked of the client: a Bearer token, and where it gets one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Absolute URL of `/token`.
    pub realm: String,
    /// What this registry is called in tokens.
    pub service: String,
    /// What the request needs, if it needs something particular.
    pub scope: Vec<Scope>,
    /// Why what was sent is not enough.
    pub error: Option<ChallengeError>,
    /// For the body of the answer.
    pub reason: &'static str,
}

/// The errors of RFC 6750.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeError {
    /// Wrong, expired or revoked.
    InvalidToken,
    /// Right, but made for something else.
    InsufficientScope,
}

impl Challenge {
    /// The value of `WWW-Authenticate`.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        let mut text = format!("Bearer realm=\"{}\",service=\"{}\"", self.realm, self.service);
        if !self.scope.is_empty() {
            let scopes: Vec<String> = self.scope.iter().map(ToString::to_string).collect();
            text.push_str(&format!(",scope=\"{}\"", scopes.join(" ")));
        }
        match self.error {
            None => {}
            Some(ChallengeError::InvalidToken) => text.push_str(",error=\"invalid_token\""),
            Some(ChallengeError::InsufficientScope) => {
                text.push_str(",error=\"insufficient_scope\"");
            }
        }
        // Realm and service were checked when they were made; scopes are plain by their grammar.
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_reads_as_clients_expect_it() {
        let challenge = Challenge {
            realm: "https://r.example/token".to_owned(),
            service: "r.example".to_owned(),
            scope: vec!["repository:ada/app:pull,push".parse().unwrap()],
            error: Some(ChallengeError::InsufficientScope),
            reason: "authentication is required",
        };
        assert_eq!(
            challenge.header_value(),
            "Bearer realm=\"https://r.example/token\",service=\"r.example\",\
             scope=\"repository:ada/app:pull,push\",error=\"insufficient_scope\""
        );
    }

    #[test]
    fn every_refusal_has_a_body_that_clients_can_read() {
        for refusal in [Refusal::Denied("no".into()), Refusal::Unavailable] {
            let body: serde_json::Value = serde_json::from_slice(&refusal.body()).unwrap();
            assert_eq!(body["errors"][0]["code"], refusal.code());
        }
    }
}
