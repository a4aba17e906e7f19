//! Everything that can stand in the way of an answer, in one type for `?`.

use axum::body::Body;
use http::{HeaderValue, Method, Response, header};

use super::{answer, dispatch};
use crate::auth::Refusal;
use crate::oci::ApiError;

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub enum Failure {
    /// An error of the specification.
    Api(Box<ApiError>),
    /// Nobody is let in like this.
    Refused(Refusal),
    /// Something else than what this path can do.
    Method(&'static str),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(Box::new(error))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Failure {
    /// The answer; the one place where a failure is logged.
    #[must_use]
    pub fn answer(&self, method: &Method, id: u64) -> Response<Body> {
        match self {
            Self::Api(error) => dispatch::refusal(error, method, id),
            Self::Refused(refusal) => {
                let mut response = answer::json(refusal.status(), refusal.body());
                refusal.add_headers(response.headers_mut());
                response
            }
            Self::Method(allow) => {
                let error = ApiError::new(crate::oci::Code::Unsupported);
                let mut response = answer::error(&error);
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
                response
            }
        }
    }
}
