//! The TOML file: every error names the file, the line and, for a key, the nearest known one.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Settings;
use super::keys::{KEYS, apply as apply_key, nearest};
use crate::exit::Failure;

/// The section that says who may call the gateway.
const AUTH: &str = "auth";

/// Reads `text` into `settings`; `path` is for messages.
///
/// # Errors
/// `Usage` with file and line.
pub fn apply(settings: &mut Settings, path: &Path, text: &str) -> Result<(), Failure> {
    let at = |offset: usize, message: String| {
        let line = text[..offset.min(text.len())].matches('\n').count() + 1;
        Failure::usage(format!("{}:{line}: {message}", path.display()))
    };
    let root = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        at(offset, error.message().to_owned())
    })?;
    for (name, value) in root.get_ref() {
        let offset = name.span().start;
        let name = name.get_ref().as_ref();
        if name == AUTH {
            // A section of its own form, which the gateway reads.
            continue;
        }
        if let DeValue::Table(section) = value.get_ref() {
            if !sections().any(|known| known == name) {
                return Err(at(offset, unknown_section(name)));
            }
            for (key, value) in section {
                let full = format!("{name}.{}", key.get_ref());
                set(settings, &full, value).map_err(|why| at(key.span().start, why))?;
            }
        } else {
            set(settings, name, value).map_err(|why| at(offset, why))?;
        }
    }
    Ok(())
}

fn set(settings: &mut Settings, key: &str, value: &Spanned<DeValue<'_>>) -> Result<(), String> {
    if !KEYS.contains(&key) {
        let near = nearest(key, KEYS.iter().map(|known| (*known).to_owned()));
        let hint = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
        return Err(format!("unknown key `{key}`{hint}"));
    }
    let text = match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        _ => return Err(format!("`{key}` takes a string, a number, or true or false")),
    };
    apply_key(settings, key, &text).map_err(|why| format!("{key} = {text:?}: {why}"))
}

fn sections() -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(|key| key.split_once('.')).map(|(section, _)| section)
}

fn unknown_section(name: &str) -> String {
    let near = nearest(name, sections().map(str::to_owned));
    let hint = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
    format!("unknown section `{name}`{hint}")
}
