//! Tokens that `/token` gives: opaque to clients, checked by every instance without asking anybody.
//!
//! ```text
//! ykd1.KEY.PAYLOAD.MAC     KEY: id of the signing key; PAYLOAD: base64url of JSON claims;
//!                          MAC: base64url of BLAKE3 keyed with that key over `ykd1.KEY.PAYLOAD`
//! ```
//!
//! They are not JWTs: there is one algorithm, and nobody else reads them. Pure; keys come from
//! [`super::keys`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use yadokari_catalog::OwnerName;

use super::scope::Scope;

/// What every token begins with.
const PREFIX: &str = "ykd1";
/// Longer ones are not looked at: 64 scopes of 255 bytes fit.
pub const TOKEN_BYTES_MAX: usize = 32 << 10;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Requests.
    Access,
    /// Getting access tokens.
    Refresh,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For what.
    #[serde(rename = "use")]
    pub usage: Use,
    /// For whom; nobody in particular without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Subject>,
    /// The ceiling; `None` only in refresh tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<Scope>>,
    /// Seconds since 1970.
    pub issued: u64,
    /// Seconds since 1970.
    pub expires: u64,
}

/// Whom a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The owner name.
    pub name: OwnerName,
    /// The authority that vouched: its record holds id and groups.
    pub via: String,
    /// The robot that acts for the user, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub robot: Option<String>,
    /// What the authority had when a refresh token was made; another password ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// Makes a token.
#[must_use]
pub fn seal(claims: &Claims, key_id: &str, key: &[u8; 32]) -> String {
    let payload = serde_json::to_vec(claims).expect("claims are plain data");
    let signed = format!("{PREFIX}.{key_id}.{}", URL_SAFE_NO_PAD.encode(payload));
    let mac = blake3::keyed_hash(key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.as_bytes()))
}

/// The key that a token names; `None` for what is no token of ours.
#[must_use]
pub fn key_id(token: &str) -> Option<&str> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let mut parts = token.split('.');
    (parts.next() == Some(PREFIX)).then(|| parts.next())?
}

/// What a token says, if that key made it. Whether it is still good is the caller's to see.
#[must_use]
pub fn open(token: &str, key: &[u8; 32]) -> Option<Claims> {
    let (signed, mac) = token.rsplit_once('.')?;
    let mac: [u8; 32] = URL_SAFE_NO_PAD.decode(mac).ok()?.try_into().ok()?;
    // blake3::Hash compares in constant time.
    if blake3::keyed_hash(key, signed.as_bytes()) != blake3::Hash::from_bytes(mac) {
        return None;
    }
    let payload = signed.rsplit_once('.')?.1;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            usage: Use::Access,
            user: Some(Subject {
                name: "ada".parse().unwrap(),
                via: "ldap".to_owned(),
                robot: None,
                fingerprint: None,
            }),
            scopes: Some(vec!["repository:ada/app:pull".parse().unwrap()]),
            issued: 1,
            expires: 2,
        }
    }

    #[test]
    fn what_was_sealed_is_opened() {
        let token = seal(&claims(), "k1", &[7; 32]);
        assert_eq!(key_id(&token), Some("k1"));
        assert_eq!(open(&token, &[7; 32]), Some(claims()));
    }

    #[test]
    fn a_token_of_another_key_or_with_one_byte_changed_is_none() {
        let token = seal(&claims(), "k1", &[7; 32]);
        assert_eq!(open(&token, &[8; 32]), None);
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(open(&changed, &[7; 32]), None, "byte {at}");
        }
    }

    #[test]
    fn what_is_no_token_names_no_key() {
        for text in ["", ".", "a.b.c", "ykd2.k.p.m", "ykd1"] {
            assert_eq!(key_id(text), None, "{text}");
        }
        assert_eq!(key_id(&"ykd1.".repeat(TOKEN_BYTES_MAX)), None);
    }
}
