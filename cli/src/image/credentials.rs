//! Credentials as `podman login` leaves them: auth.json, and the helpers that it names.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;

use crate::exit::Failure;

/// The value of an `Authorization` header. Has no `Debug` on purpose.
pub struct Authorization(pub String);

/// containers-auth.json(5).
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AuthFile {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// What is stored for a registry; `None` is nothing, and the local registry knows the caller.
///
/// # Errors
/// A file that was named and cannot be read; an entry that cannot be used.
pub fn find(host: &str, named: Option<&Path>) -> anyhow::Result<Option<Authorization>> {
    if let Some(file) = named {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
        return in_file(file, &text, host);
    }
    for file in usual_files() {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        if let Some(found) = in_file(&file, &text, host)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Where Podman looks, in its order.
fn usual_files() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let home = std::env::home_dir().unwrap_or_default();
    let uid = rustix::process::geteuid().as_raw();
    let runtime = variable("XDG_RUNTIME_DIR");
    let runtime = runtime.unwrap_or_else(|| PathBuf::from(format!("/run/user/{uid}")));
    let config = variable("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
    let mut files = vec![runtime.join("containers/auth.json")];
    if uid == 0 {
        files.push(PathBuf::from("/run/containers/0/auth.json"));
    }
    files.push(config.join("containers/auth.json"));
    files.push(home.join(".docker/config.json"));
    files
}

fn in_file(file: &Path, text: &str, host: &str) -> anyhow::Result<Option<Authorization>> {
    // The message of a parser may quote what it read.
    let parsed: AuthFile = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Failure::failed(format!("{}:{line}:{column}: not an auth.json", file.display()))
    })?;
    let helper = parsed.cred_helpers.get(host).or(parsed.creds_store.as_ref());
    if let Some(helper) = helper
        && let Some(found) = ask_helper(helper, host)
    {
        return Ok(Some(found));
    }
    let keys = [host.to_owned(), format!("https://{host}"), format!("http://{host}")];
    let entry = keys.iter().find_map(|key| parsed.auths.get(key));
    let Some(entry) = entry else { return Ok(None) };
    if entry.identitytoken.as_deref().is_some_and(|token| !token.is_empty()) {
        let text = format!("{}: the login at {host} is an identity token", file.display());
        let remedy = format!("log in with a password: podman login {host}");
        return Err(Failure::refused(text).remedy(remedy).into());
    }
    let auth = entry.auth.as_deref().filter(|auth| STANDARD.decode(auth).is_ok());
    Ok(auth.map(|auth| Authorization(format!("Basic {auth}"))))
}

/// Asks `docker-credential-NAME`; whatever goes wrong there is no login.
fn ask_helper(name: &str, host: &str) -> Option<Authorization> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Said {
        username: String,
        secret: String,
    }
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(host.as_bytes()).ok()?;
    let output = child.wait_with_output().ok().filter(|output| output.status.success())?;
    let said: Said = serde_json::from_slice(&output.stdout).ok()?;
    let text = format!("{}:{}", said.username, said.secret);
    Some(Authorization(format!("Basic {}", STANDARD.encode(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, host: &str) -> Option<String> {
        in_file(Path::new("auth.json"), text, host).expect("is read").map(|a| a.0)
    }

    #[test]
    fn a_login_is_found_under_its_host_and_no_other() {
        let text = r#"{"auths": {"r.example:5000": {"auth": "YWRhOnNlY3JldA=="}, "x": {}}}"#;
        assert_eq!(found(text, "r.example:5000").as_deref(), Some("Basic YWRhOnNlY3JldA=="));
        assert_eq!(found(text, "r.example"), None);
        assert_eq!(found(text, "x"), None);
        assert_eq!(found("{}", "x"), None);
    }

    #[test]
    fn an_error_quotes_nothing_of_the_file() {
        let error = in_file(Path::new("auth.json"), "{\"auths\": \"c2VjcmV0\"}", "x");
        let Err(error) = error else { panic!("is no auth.json") };
        assert!(!error.to_string().contains("c2VjcmV0"), "{error}");
    }
}
