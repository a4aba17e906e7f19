//! The small parts of URL syntax that store URLs need: escapes, parameters, nearest names.
//!
//! The `url` crate is not used for them: it lower-cases what it takes for a host, which pool and
//! bucket names are not, and its errors do not say which part is wrong.

use super::UrlError;
use std::time::Duration;

/// Decoded parameters that nobody asked for yet, in their order.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(url: &str, text: &str) -> Result<Self, UrlError> {
        let err = |key: &str, problem: &str, remedy: &str| UrlError {
            url: url.to_owned(),
            part: format!("parameter {key}"),
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        };
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if value.is_empty() {
                return Err(err(key, "has no value", "write NAME=VALUE, or leave it out"));
            }
            let Some(value) = decode(value) else {
                let remedy = "write two hexadecimal digits behind each %, of UTF-8 text";
                return Err(err(key, "has a broken % escape", remedy));
            };
            if pairs.iter().any(|(known, _)| known == key) {
                return Err(err(key, "is given twice", "leave one of them out"));
            }
            pairs.push((key.to_owned(), value));
        }
        Ok(Query(pairs))
    }

    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(at).1)
    }

    pub(super) fn left(&self) -> Option<&str> {
        self.0.first().map(|(key, _)| key.as_str())
    }
}

/// Resolves %XX escapes; None when one is broken or the result is not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
        out.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(out).ok()
}

/// Escapes what would end or change the part; slashes stay readable.
pub(super) fn encode(text: &str) -> String {
    escape(text, "/:,[]")
}

/// Escapes a part that must not contain a slash either.
pub(super) fn encode_name(text: &str) -> String {
    escape(text, "")
}

fn escape(text: &str, also_plain: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric()
            || b"-._~".contains(&byte)
            || also_plain.as_bytes().contains(&byte);
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Whole seconds or minutes, between a second and ten minutes: `10`, `10s`, `2m`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
    (1..=600).contains(&seconds).then(|| Duration::from_secs(seconds))
}

/// The known name that a mistyped one is nearest to, if any is near at all.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (edit_distance(word, name), *name))
        .filter(|(distance, name)| *distance <= name.len().max(word.len()) / 2)
        .min()
        .map(|(_, name)| name)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
