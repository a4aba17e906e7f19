//! `If-Match`, `If-None-Match` and `If-Range` (RFC 9110, section 13) for content whose entity tag
//! is its digest.

/// The entity tag of a digest, quoted.
#[must_use]
pub fn etag(digest: &str) -> String {
    format!("\"{digest}\"")
}

/// `If-None-Match`: true when the client has that content already and 304 is the answer.
#[must_use]
pub fn none_match_hits(header: Option<&str>, digest: &str) -> bool {
    header.is_some_and(|header| tags(header).any(|tag| tag == "*" || opaque(tag) == digest))
}

/// What a conditional push asks about the tag that it would set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Any,
    /// The tag must not be there (`If-None-Match: *`).
    Absent,
    /// The tag must be there (`If-Match: *`).
    Present,
    /// The tag must point to one of these digests (`If-Match: "…"`).
    OneOf(Vec<String>),
    /// The tag must point to none of these (`If-None-Match: "…"`).
    NoneOf(Vec<String>),
}

impl Expected {
    /// Reads both headers; `If-Match` wins, as RFC 9110 orders them.
    #[must_use]
    pub fn of(if_match: Option<&str>, if_none_match: Option<&str>) -> Self {
        let list = |header: &str| tags(header).map(|tag| opaque(tag).to_owned()).collect();
        match (if_match, if_none_match) {
            (Some(header), _) if header.trim() == "*" => Self::Present,
            (Some(header), _) => Self::OneOf(list(header)),
            (None, Some(header)) if header.trim() == "*" => Self::Absent,
            (None, Some(header)) => Self::NoneOf(list(header)),
            (None, None) => Self::Any,
        }
    }

    /// Does the tag, as it points now, allow it?
    #[must_use]
    pub fn allows(&self, now: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => now.is_none(),
            Self::Present => now.is_some(),
            Self::OneOf(digests) => now.is_some_and(|now| digests.iter().any(|d| d == now)),
            Self::NoneOf(digests) => now.is_none_or(|now| digests.iter().all(|d| d != now)),
        }
    }
}

/// `If-Range`: true when the range counts; a date never does, since there is none to compare.
#[must_use]
pub fn range_counts(if_range: Option<&str>, digest: &str) -> bool {
    if_range.is_none_or(|tag| tag.trim().trim_matches('"') == digest && !tag.starts_with("W/"))
}

fn tags(header: &str) -> impl Iterator<Item = &str> {
    header.split(',').map(str::trim).filter(|tag| !tag.is_empty())
}

fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_digest_is_not_sent_again() {
        assert!(none_match_hits(Some("\"sha256:a\""), "sha256:a"));
        assert!(none_match_hits(Some("\"x\", W/\"sha256:a\""), "sha256:a"));
        assert!(none_match_hits(Some("*"), "sha256:a"));
        assert!(!none_match_hits(Some("\"sha256:b\""), "sha256:a"));
        assert!(!none_match_hits(None, "sha256:a"));
    }

    #[test]
    fn a_conditional_push_says_what_it_saw() {
        let one = Expected::of(Some("\"sha256:a\""), Some("*"));
        assert!(one.allows(Some("sha256:a")) && !one.allows(Some("sha256:b")));
        assert!(!one.allows(None));
        assert!(Expected::of(None, Some("*")).allows(None));
        assert!(!Expected::of(None, Some("*")).allows(Some("sha256:a")));
        assert!(Expected::of(Some("*"), None).allows(Some("sha256:a")));
        assert!(Expected::of(None, Some("\"sha256:a\"")).allows(Some("sha256:b")));
        assert!(Expected::of(None, None).allows(None));
    }

    #[test]
    fn a_range_of_other_content_is_no_range() {
        assert!(range_counts(None, "sha256:a"));
        assert!(range_counts(Some("\"sha256:a\""), "sha256:a"));
        assert!(!range_counts(Some("\"sha256:b\""), "sha256:a"));
        assert!(!range_counts(Some("Wed, 21 Oct 2015 07:28:00 GMT"), "sha256:a"));
    }
}
