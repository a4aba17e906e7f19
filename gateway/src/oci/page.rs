//! Pages of tags, repositories and referrers: `n`, `last`, and the `Link` to the next one.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::{ApiError, Code};
use super::query::Query;

/// Entries of a page when a client asks for more, or says nothing. Clients that know no `Link`
/// get so many at once.
pub const PAGE_MAX: usize = 10_000;
/// What may stand in a query value as it is.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What part of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most so many.
    pub n: usize,
    /// Only what comes behind this.
    pub last: Option<String>,
}

impl Page {
    /// Reads `n` and `last`.
    ///
    /// # Errors
    /// `PAGINATION_NUMBER_INVALID` for an `n` that is no number.
    pub fn of(query: &Query<'_>) -> Result<Self, ApiError> {
        let n = match query.get("n") {
            None => PAGE_MAX,
            Some(text) => {
                let digits = text.bytes().all(|b| b.is_ascii_digit());
                let wrong = || ApiError::with(Code::PaginationNumberInvalid, "n must be a number");
                if !digits {
                    return Err(wrong());
                }
                // More digits than a number has still mean "many".
                text.parse().unwrap_or(usize::MAX).min(PAGE_MAX)
            }
        };
        Ok(Self { n, last: query.get("last").map(str::to_owned) })
    }
}

/// The `Link` header that leads to the page behind `last`; `more` are other parameters to keep.
#[must_use]
pub fn link(path: &str, n: usize, last: &str, more: &[(&str, &str)]) -> String {
    let mut text = format!("<{path}?n={n}&last={}", utf8_percent_encode(last, VALUE));
    for (name, value) in more {
        text.push('&');
        text.push_str(name);
        text.push('=');
        text.extend(utf8_percent_encode(value, VALUE));
    }
    text.push_str(">; rel=\"next\"");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(raw: &str) -> Result<Page, u16> {
        Page::of(&Query::parse(Some(raw)).unwrap()).map_err(|error| error.status)
    }

    #[test]
    fn n_is_a_number_with_a_limit() {
        assert_eq!(page("n=3&last=b"), Ok(Page { n: 3, last: Some("b".to_owned()) }));
        assert_eq!(page("n=0"), Ok(Page { n: 0, last: None }));
        assert_eq!(page("n=99999999999999999999999").map(|page| page.n), Ok(PAGE_MAX));
        assert_eq!(page(""), Ok(Page { n: PAGE_MAX, last: None }));
        assert_eq!(page("n=-1"), Err(400));
        assert_eq!(page("n=x"), Err(400));
    }

    #[test]
    fn a_link_keeps_what_was_asked() {
        assert_eq!(
            link("/v2/a/tags/list", 2, "v1.0", &[]),
            "</v2/a/tags/list?n=2&last=v1.0>; rel=\"next\""
        );
        assert_eq!(
            link("/v2/a/referrers/x", 2, "sha256:a", &[("artifactType", "a/b")]),
            "</v2/a/referrers/x?n=2&last=sha256%3Aa&artifactType=a%2Fb>; rel=\"next\""
        );
    }
}
