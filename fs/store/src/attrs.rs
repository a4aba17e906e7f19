//! Attributes of an object as bytes, for the backends that keep them themselves.
//!
//! ```text
//! count u8, then per attribute: kind u8, [key length u16, key,] value length u16, value
//! ```
//!
//! Numbers are little-endian; a key is there for kind `Metadata` alone. The form is part of the
//! on-store format of `file://` and `rados://`.

use object_store::{Attribute, AttributeValue, Attributes};

const METADATA: u8 = 0;
const PLAIN: [(u8, Attribute); 6] = [
    (1, Attribute::ContentDisposition),
    (2, Attribute::ContentEncoding),
    (3, Attribute::ContentLanguage),
    (4, Attribute::ContentType),
    (5, Attribute::CacheControl),
    (6, Attribute::StorageClass),
];

/// None when an attribute is of a kind this format does not know, or too long for it.
pub(crate) fn encode(attributes: &Attributes) -> Option<Vec<u8>> {
    let mut out = vec![u8::try_from(attributes.len()).ok()?];
    let mut sorted: Vec<(u8, &str, &str)> = Vec::with_capacity(attributes.len());
    for (key, value) in attributes {
        match key {
            Attribute::Metadata(name) => sorted.push((METADATA, name.as_ref(), value.as_ref())),
            plain => {
                let (kind, _) = PLAIN.iter().find(|(_, known)| known == plain)?;
                sorted.push((*kind, "", value.as_ref()));
            }
        }
    }
    // A map has no order; sorted, equal attributes give equal bytes.
    sorted.sort_unstable();
    for (kind, key, value) in sorted {
        out.push(kind);
        if kind == METADATA {
            put_text(&mut out, key)?;
        }
        put_text(&mut out, value)?;
    }
    Some(out)
}

/// None when the bytes are not of this form.
pub(crate) fn decode(bytes: &[u8]) -> Option<Attributes> {
    let (count, mut rest) = bytes.split_first()?;
    let mut attributes = Attributes::with_capacity(usize::from(*count));
    for _ in 0..*count {
        let (kind, tail) = rest.split_first()?;
        rest = tail;
        let key = match *kind {
            METADATA => Attribute::Metadata(take_text(&mut rest)?.into()),
            plain => PLAIN.iter().find(|(known, _)| *known == plain)?.1.clone(),
        };
        attributes.insert(key, AttributeValue::from(take_text(&mut rest)?));
    }
    rest.is_empty().then_some(attributes)
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Option<()> {
    out.extend_from_slice(&u16::try_from(text.len()).ok()?.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Some(())
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let (length, tail) = rest.split_first_chunk::<2>()?;
    let (text, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *rest = tail;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip_and_damage_is_noticed() {
        let attributes = Attributes::from_iter([
            (Attribute::ContentType, "text/plain"),
            (Attribute::Metadata("key".into()), "value"),
            (Attribute::Metadata("other".into()), ""),
        ]);
        let bytes = encode(&attributes).expect("fits");
        assert_eq!(decode(&bytes), Some(attributes));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None);
        }
        assert_eq!(encode(&Attributes::new()), Some(vec![0]));
    }
}
