//! The list of referrers as an image index, and the tag that stands in for it where a client or
//! an older registry kept the list itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use yadokari_catalog::Digest;

use super::media;

/// One referrer as it stands in the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The index of these referrers, as JSON.
#[must_use]
pub fn index(referrers: &[Descriptor]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u32,
        media_type: &'static str,
        manifests: &'a [Descriptor],
    }
    let index = Index { schema_version: 2, media_type: media::OCI_INDEX, manifests: referrers };
    serde_json::to_vec(&index).expect("strings and numbers can always be written")
}

/// The descriptors of an index; of anything else none.
#[must_use]
pub fn read_index(bytes: &[u8]) -> Vec<Descriptor> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Vec<Descriptor>,
    }
    serde_json::from_slice::<Index>(bytes).map(|index| index.manifests).unwrap_or_default()
}

/// The tag under which clients without the referrers API keep the list of a subject.
#[must_use]
pub fn fallback_tag(subject: &Digest) -> String {
    const ALGORITHM_CHARS_MAX: usize = 32;
    const ENCODED_CHARS_MAX: usize = 64;
    let text = subject.to_string();
    let (algorithm, encoded) = text.split_once(':').unwrap_or((&text, ""));
    let cut = |text: &str, max: usize| -> String {
        let allowed =
            |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        text.chars().take(max).map(allowed).collect()
    };
    format!("{}-{}", cut(algorithm, ALGORITHM_CHARS_MAX), cut(encoded, ENCODED_CHARS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_is_an_index_with_no_manifests() {
        let index: serde_json::Value = serde_json::from_slice(&index(&[])).unwrap();
        let expected = serde_json::json!({
            "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [],
        });
        assert_eq!(index, expected);
    }

    #[test]
    fn the_fallback_tag_cuts_long_digests() {
        let short: Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        assert_eq!(fallback_tag(&short), format!("sha256-{}", "a".repeat(64)));
        let long: Digest = format!("sha512:{}", "b".repeat(128)).parse().unwrap();
        assert_eq!(fallback_tag(&long), format!("sha512-{}", "b".repeat(64)));
    }
}
