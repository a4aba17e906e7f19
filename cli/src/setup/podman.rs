//! `yadokari setup podman`: edits storage.conf, unless that would orphan what Podman has stored,
//! and names this machine's registry.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use toml_edit::{DocumentMut, Item};

use super::volatile::{self, Answer};
use super::{registries, storage};
use crate::exit::Failure;

/// What was (or would be) done; the shape of `--json`.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The file.
    pub file: PathBuf,
    /// What changes in it.
    pub changes: Vec<String>,
    /// It was written.
    pub written: bool,
    /// The entry of this machine's registry.
    pub registry: Option<Entry>,
    /// What lets builds be volatile, where Podman does not find out by itself.
    pub volatile: Option<Answer>,
}

/// An entry in registries.conf.d.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// The file.
    pub file: PathBuf,
    /// Which registry it is about.
    pub location: SocketAddr,
    /// It is there already.
    pub there: bool,
    /// It was written.
    pub written: bool,
}

/// Lets Podman speak plain HTTP to a registry on loopback; nothing for any other address.
///
/// # Errors
/// I/O.
pub fn name_registry(
    home: &Path,
    system: bool,
    dry_run: bool,
    data: &Path,
    address: SocketAddr,
) -> anyhow::Result<Option<Entry>> {
    if !address.ip().is_loopback() {
        return Ok(None);
    }
    let file = registries::file(&registries::folder(home, system), address);
    let text = registries::text(address, data);
    let there = std::fs::read_to_string(&file).is_ok_and(|old| old == text);
    let written = !there && !dry_run;
    if written {
        registries::write(&file, &text)?;
    }
    Ok(Some(Entry { file, location: address, there, written }))
}

/// Makes the file of the user whose home is `home`, or the machine's, say native overlay.
///
/// # Errors
/// `Refused` when stored images and containers would be out of reach; I/O.
pub fn run(home: &Path, system: bool, dry_run: bool) -> anyhow::Result<Outcome> {
    let root = rustix::process::geteuid().is_root();
    if system && !root && !dry_run {
        let error = Failure::refused(format!("only root may write {}", storage::SYSTEM_FILE));
        return Err(error
            .remedy("sudo yadokari setup podman --system, or leave --system out")
            .into());
    }
    let file = if system { PathBuf::from(storage::SYSTEM_FILE) } else { storage::user_file(home) };
    let before = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context(format!("reading {}", file.display())),
    };
    let mut doc: DocumentMut = before.parse().map_err(|error: toml_edit::TomlError| {
        Failure::failed(format!("{}: {}", file.display(), error.message()))
            .remedy("mend it or move it away, then try again")
    })?;
    let changes = storage::make_native(&mut doc)
        .map_err(|why| Failure::failed(format!("{}: {why}", file.display())))?;
    if !changes.is_empty() {
        refuse_orphans(&graph_root(&doc, home, system || root))?;
    }
    let written = !changes.is_empty() && !dry_run;
    if written {
        super::file::replace(&file, &doc.to_string(), system)?;
    }
    Ok(Outcome { file, changes, written, registry: None, volatile: None })
}

/// The outcome for people.
pub fn show(outcome: &Outcome) -> String {
    let mut out = show_storage(outcome);
    if let Some(entry) = &outcome.registry {
        let (file, at) = (entry.file.display(), entry.location);
        let verb = match (entry.there, entry.written) {
            (true, _) => "is there already",
            (false, true) => "written",
            (false, false) => "would be written",
        };
        out.push_str(&format!("{file}: {verb}, for podman push {at}/$USER/…\n"));
    }
    if let Some(answer) = &outcome.volatile {
        out.push_str(&volatile::show(answer));
    }
    out
}

fn show_storage(outcome: &Outcome) -> String {
    let file = outcome.file.display();
    if outcome.changes.is_empty() {
        return format!("{file}: nothing to change, Podman uses the kernel's overlay already\n");
    }
    let verb = if outcome.written { "changed" } else { "would change" };
    let mut out = format!("{file}: {verb}\n");
    for change in &outcome.changes {
        out.push_str(&format!("  {change}\n"));
    }
    if outcome.written {
        out.push_str("Check with: podman info --format '{{.Store.GraphDriverName}} {{.Store.GraphStatus}}'\n");
    }
    out
}

/// Where Podman keeps images and containers.
fn graph_root(doc: &DocumentMut, home: &Path, of_root: bool) -> PathBuf {
    let storage = doc.get("storage");
    let key = |name| storage.and_then(|s| s.get(name)).and_then(Item::as_str);
    if of_root {
        return key("graphroot").unwrap_or("/var/lib/containers/storage").into();
    }
    if let Some(path) = key("rootless_storage_path") {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let user = std::env::var("USER").unwrap_or_default();
        let path = path.replace("$HOME", &home.to_string_lossy());
        return path.replace("$UID", &uid).replace("$USER", &user).into();
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    data.unwrap_or_else(|| home.join(".local/share")).join("containers/storage")
}

/// Layers of another driver cannot be seen through this one, and Podman then refuses to start.
fn refuse_orphans(graph_root: &Path) -> anyhow::Result<()> {
    for driver in ["vfs", "btrfs", "zfs", "aufs", "devicemapper"] {
        let images = graph_root.join(format!("{driver}-images/images.json"));
        let containers = graph_root.join(format!("{driver}-containers/containers.json"));
        let layers = graph_root.join(format!("{driver}-layers/layers.json"));
        if [images, containers, layers].iter().any(|file| holds_entries(file)) {
            let message = format!(
                "{} holds images or containers of the driver `{driver}`, which overlay cannot see",
                graph_root.display()
            );
            let remedy = "save what you need:    podman save -o images.tar -m $(podman images -q)\n\
                          then empty the store:  podman system reset\n\
                          run this again, then:  podman load -i images.tar";
            return Err(Failure::refused(message).remedy(remedy).into());
        }
    }
    Ok(())
}

/// A JSON list with something in it. What cannot be read counts as something.
fn holds_entries(file: &Path) -> bool {
    match std::fs::read_to_string(file) {
        Ok(text) => serde_json::from_str::<Vec<serde_json::Value>>(&text)
            .map_or(!text.trim().is_empty(), |entries| !entries.is_empty()),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_vfs_images_are_not_orphaned() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(refuse_orphans(dir.path()).is_ok());
        let images = dir.path().join("vfs-images");
        std::fs::create_dir(&images).expect("made");
        std::fs::write(images.join("images.json"), "[]").expect("written");
        assert!(refuse_orphans(dir.path()).is_ok());
        std::fs::write(images.join("images.json"), "[{}]").expect("written");
        let error = refuse_orphans(dir.path()).expect_err("holds an image");
        assert!(error.to_string().contains("`vfs`"), "{error}");
        assert_eq!(crate::exit::code(&error), crate::exit::Exit::Refused);
    }
}
