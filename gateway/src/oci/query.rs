//! The query of a request, decoded once.

use std::borrow::Cow;

/// More parameters than any request needs: a push by digest names its tags here.
pub const PARAMETERS_MAX: usize = 128;

/// Decoded parameters in their order.
#[derive(Clone, Debug, Default)]
pub struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Decodes; `None` when there are more than [`PARAMETERS_MAX`].
    #[must_use]
    pub fn parse(raw: Option<&'a str>) -> Option<Self> {
        let Some(raw) = raw else { return Some(Self::default()) };
        let mut pairs = Vec::new();
        for pair in form_urlencoded::parse(raw.as_bytes()) {
            if pairs.len() == PARAMETERS_MAX {
                return None;
            }
            pairs.push(pair);
        }
        Some(Self { pairs })
    }

    /// The first value of a parameter; an empty one counts as absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// Every value of a parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_once() {
        let query = Query::parse(Some("a=1%252F2&tag=x&tag=y&e=&artifactType=a%2Fb+c")).unwrap();
        assert_eq!(query.get("a"), Some("1%2F2"));
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(query.get("e"), None);
        assert_eq!(query.get("artifactType"), Some("a/b c"));
        assert!(Query::parse(Some(&"a=1&".repeat(PARAMETERS_MAX + 1))).is_none());
    }
}
