//! Answers: errors in the form of the specification, headers that registries share.

use axum::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::oci::ApiError;

/// The digest of what was asked for or stored.
pub const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// What every registry says about itself; old Docker insists on it.
pub const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// The session's name, which some clients read instead of the Location.
pub const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// The subject of a manifest was understood.
pub const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// Which filters the referrers went through.
pub const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// Which tags a push by digest has set.
pub const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// An answer without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

/// An answer with content that is there already.
#[must_use]
pub fn full(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// JSON.
#[must_use]
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    full(status, HeaderValue::from_static("application/json"), body.into())
}

/// A header value out of text of ours, which has no control characters.
#[must_use]
pub fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// An error, as clients read it.
#[must_use]
pub fn error(error: &ApiError) -> Response<Body> {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, error.body());
    let headers = response.headers_mut();
    if let Some(after) = error.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    if let Some((location, received)) = &error.upload {
        headers.insert(header::LOCATION, value(location));
        headers.insert(header::RANGE, value(&crate::oci::range::received(*received)));
    }
    response
}
