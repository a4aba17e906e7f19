//! Which registry is meant: an option, a name, the one that runs here, what Podman knows.

use std::path::Path;

use toml_edit::{DocumentMut, Item};

use crate::config::Settings;
use crate::exit::Failure;
use crate::setup::registries;

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `HOST` or `HOST:PORT`, as credentials are stored under.
    pub host: String,
    /// Speak TLS.
    pub tls: bool,
}

impl Place {
    /// Host and port to connect to.
    pub fn address(&self) -> (String, u16) {
        let usual = if self.tls { 443 } else { 80 };
        let (name, port) = match self.host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port.parse().unwrap_or(usual)),
            _ => (self.host.as_str(), usual),
        };
        (name.trim_matches(['[', ']']).to_owned(), port)
    }
}

/// The registry in front of a name, and the rest; a host has a dot, a port, or is localhost.
pub fn split(name: &str) -> Option<(&str, &str)> {
    let (first, rest) = name.split_once('/')?;
    let is_host = first.contains(['.', ':']) || first == "localhost";
    // `a.b/c` may be an owner with a dot; as for podman, it reads as a host.
    (is_host && !rest.is_empty()).then_some((first, rest))
}

/// A registry without its scheme.
pub fn host_of(text: &str) -> &str {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.trim_end_matches('/')
}

/// Finds it.
///
/// # Errors
/// When none is named and none is known.
pub fn find(settings: &Settings, named: Option<&str>) -> anyhow::Result<Place> {
    if let Some(named) = named {
        let host = host_of(named).to_owned();
        if host.is_empty() || host.contains(['/', ' ', '@']) {
            let text = format!("`{named}` is no registry");
            return Err(Failure::usage(text).remedy("--registry HOST[:PORT]").into());
        }
        let tls = match named.split_once("://") {
            Some(("http", _)) => false,
            Some(("https", _)) => true,
            Some((other, _)) => {
                let text = format!("`{other}://` is no scheme of registries");
                return Err(Failure::usage(text).remedy("--registry https://HOST[:PORT]").into());
            }
            None => !is_insecure(&host),
        };
        return Ok(Place { host, tls });
    }
    if let Some(host) = registries::running(&settings.data) {
        return Ok(Place { host, tls: false });
    }
    let ours = registries::files_of_ours().into_iter().find_map(|file| first_location(&file));
    match ours {
        Some(host) => Ok(Place { host, tls: false }),
        None => Err(Failure::usage("no registry is named, and none runs here")
            .remedy(
                "name it:          yadokari image --registry HOST[:PORT] …\n\
                 or start one:     yadokari up\n\
                 or the instance:  --data DIR",
            )
            .into()),
    }
}

/// Plain HTTP: loopback, and what Podman's configuration calls insecure.
fn is_insecure(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let loopback =
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    loopback || registries::all_files().iter().any(|file| calls_insecure(file, host))
}

fn calls_insecure(file: &Path, host: &str) -> bool {
    entries(file).iter().any(|(location, insecure)| location == host && *insecure)
}

fn first_location(file: &Path) -> Option<String> {
    entries(file).into_iter().next().map(|(location, _)| location)
}

/// The registries of a registries.conf, with whether they are insecure.
fn entries(file: &Path) -> Vec<(String, bool)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let Ok(doc) = text.parse::<DocumentMut>() else { return Vec::new() };
    let Some(all) = doc.get("registry").and_then(Item::as_array_of_tables) else {
        return Vec::new();
    };
    all.iter()
        .filter_map(|table| {
            let text = |key| table.get(key).and_then(Item::as_str);
            let location = text("location").or_else(|| text("prefix"))?.to_owned();
            let insecure = table.get("insecure").and_then(Item::as_bool).unwrap_or(false);
            Some((location, insecure))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_in_front_of_a_name_is_found() {
        assert_eq!(split("r.example/ada/app:1"), Some(("r.example", "ada/app:1")));
        assert_eq!(split("127.0.0.1:5000/ada/app"), Some(("127.0.0.1:5000", "ada/app")));
        assert_eq!(split("localhost/ada"), Some(("localhost", "ada")));
        assert_eq!(split("ada/app:1"), None);
        assert_eq!(split("ada"), None);
    }

    #[test]
    fn an_address_has_the_usual_port_unless_it_names_one() {
        let at = |host: &str, tls| Place { host: host.to_owned(), tls }.address();
        assert_eq!(at("r.example", true), ("r.example".to_owned(), 443));
        assert_eq!(at("127.0.0.1:5000", false), ("127.0.0.1".to_owned(), 5000));
        assert_eq!(at("[::1]:5000", false), ("::1".to_owned(), 5000));
        assert_eq!(at("[::1]", false), ("::1".to_owned(), 80));
    }
}
