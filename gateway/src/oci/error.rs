//! The error codes of the distribution specification, and an error with its two messages.
//!
//! What a client reads says what it can do about it and nothing of our inside; what operators
//! read is in the log only. One exhaustive match gives each code its usual HTTP status.

use std::fmt;
use std::time::Duration;

/// Error codes of distribution-spec 1.1, and three that registries share beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    /// A page number that is none; distribution's own code.
    PaginationNumberInvalid,
    /// The store does not answer.
    Unavailable,
    /// Ours to mend.
    Unknown,
}

impl Code {
    /// Every code, for tests and tables.
    pub const ALL: [Self; 17] = [
        Self::BlobUnknown,
        Self::BlobUploadInvalid,
        Self::BlobUploadUnknown,
        Self::DigestInvalid,
        Self::ManifestBlobUnknown,
        Self::ManifestInvalid,
        Self::ManifestUnknown,
        Self::NameInvalid,
        Self::NameUnknown,
        Self::SizeInvalid,
        Self::Unauthorized,
        Self::Denied,
        Self::Unsupported,
        Self::TooManyRequests,
        Self::PaginationNumberInvalid,
        Self::Unavailable,
        Self::Unknown,
    ];

    /// As it stands in the answer.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.facts().0
    }

    /// The status that goes with it unless the place where it happens says otherwise.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.facts().1
    }

    /// The words for a client when there is nothing more to say.
    #[must_use]
    pub const fn message(self) -> &'static str {
        self.facts().2
    }

    const fn facts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::BlobUnknown => ("BLOB_UNKNOWN", 404, "blob unknown to registry"),
            Self::BlobUploadInvalid => ("BLOB_UPLOAD_INVALID", 400, "blob upload invalid"),
            Self::BlobUploadUnknown => {
                ("BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to registry")
            }
            Self::DigestInvalid => {
                ("DIGEST_INVALID", 400, "provided digest did not match uploaded content")
            }
            Self::ManifestBlobUnknown => (
                "MANIFEST_BLOB_UNKNOWN",
                404,
                "manifest references a manifest or blob unknown to registry",
            ),
            Self::ManifestInvalid => ("MANIFEST_INVALID", 400, "manifest invalid"),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", 404, "manifest unknown to registry"),
            Self::NameInvalid => ("NAME_INVALID", 400, "invalid repository name"),
            Self::NameUnknown => ("NAME_UNKNOWN", 404, "repository name not known to registry"),
            Self::SizeInvalid => {
                ("SIZE_INVALID", 400, "provided length did not match content length")
            }
            Self::Unauthorized => ("UNAUTHORIZED", 401, "authentication required"),
            Self::Denied => ("DENIED", 403, "requested access to the resource is denied"),
            Self::Unsupported => ("UNSUPPORTED", 405, "the operation is unsupported"),
            Self::TooManyRequests => ("TOOMANYREQUESTS", 429, "too many requests"),
            Self::PaginationNumberInvalid => {
                ("PAGINATION_NUMBER_INVALID", 400, "invalid number of results requested")
            }
            Self::Unavailable => ("UNAVAILABLE", 503, "the registry's store does not answer"),
            Self::Unknown => ("UNKNOWN", 500, "the registry failed; its log says why"),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An answer that is not what was asked for.
#[derive(Debug)]
pub struct ApiError {
    /// The code in the body.
    pub code: Code,
    /// The HTTP status; usually the code's own.
    pub status: u16,
    /// For the client.
    pub message: String,
    /// For operators: goes to the log, never to a client.
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// Where an upload stands, for 416 answers: `(location, bytes received)`.
    pub upload: Option<(String, u64)>,
}

impl ApiError {
    /// The code with its usual words.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self::with(code, code.message())
    }

    /// The code with better words for a client.
    #[must_use]
    pub fn with(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        let status = code.status();
        Self { code, status, message, cause: None, retry_after: None, upload: None }
    }

    /// With another status than the code's own.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With what an operator wants to know.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// With when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The body: `{"errors":[{"code":…,"message":…}]}`.
    #[must_use]
    pub fn body(&self) -> String {
        let error = serde_json::json!({ "code": self.code.as_str(), "message": self.message });
        serde_json::json!({ "errors": [error] }).to_string()
    }

    /// The cause with its own causes, for the log.
    #[must_use]
    pub fn cause_text(&self) -> Option<String> {
        let mut next: Option<&dyn std::error::Error> = self.cause.as_ref().map(|c| &**c as _);
        let mut text = String::new();
        while let Some(error) = next {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            next = error.source();
        }
        (!text.is_empty()).then_some(text)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_the_form_of_the_specification_and_no_cause() {
        let error = ApiError::with(Code::Denied, "over quota: 5 of 4 bytes")
            .because("rados pool homes, object x/y: timeout");
        let body: serde_json::Value = serde_json::from_str(&error.body()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"errors": [{"code": "DENIED", "message": "over quota: 5 of 4 bytes"}]})
        );
        assert_eq!(error.cause_text().unwrap(), "rados pool homes, object x/y: timeout");
    }

    #[test]
    fn every_code_is_capitals_and_underscores_and_an_error_status() {
        for code in Code::ALL {
            assert!(code.as_str().bytes().all(|b| b == b'_' || b.is_ascii_uppercase()), "{code}");
            assert!((400..600).contains(&code.status()), "{code}");
        }
    }
}
