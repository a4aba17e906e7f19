//! What a storage.conf says about the driver, and the edit that makes it native overlay.
//!
//! Pure: text in, text and list of changes out. Comments, order and foreign settings stay.

use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table, value};

/// The file of the machine.
pub const SYSTEM_FILE: &str = "/etc/containers/storage.conf";
/// Where distributions keep their defaults, read when there is no file of the machine.
const VENDOR_FILE: &str = "/usr/share/containers/storage.conf";

/// The driver that Podman would use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// Overlay, mounted by the kernel.
    Overlay,
    /// Overlay, mounted by a program.
    OverlayBy(String),
    /// Another one.
    Other(String),
    /// Podman chooses by itself.
    Unset,
}

/// The file of the user whose home is `home`.
pub fn user_file(home: &Path) -> PathBuf {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    config.unwrap_or_else(|| home.join(".config")).join("containers/storage.conf")
}

/// The driver by environment and files, in the order in which Podman asks them.
pub fn driver_in_use(home: &Path, system: bool) -> Driver {
    if let Ok(name) = std::env::var("STORAGE_DRIVER") {
        return if name == "overlay" { Driver::Overlay } else { Driver::Other(name) };
    }
    let user = user_file(home);
    let files = [user.as_path(), Path::new(SYSTEM_FILE), Path::new(VENDOR_FILE)];
    let read = |file: &&Path| std::fs::read_to_string(file).ok();
    let text = files.iter().skip(usize::from(system)).find_map(read);
    text.and_then(|text| text.parse().ok()).map_or(Driver::Unset, |doc| driver_of(&doc))
}

/// The driver that a file sets.
pub fn driver_of(doc: &DocumentMut) -> Driver {
    let storage = doc.get("storage");
    let name = storage.and_then(|s| s.get("driver")).and_then(Item::as_str).unwrap_or("");
    let options = storage.and_then(|s| s.get("options"));
    let programs = [
        options.and_then(|o| o.get("overlay")).and_then(|o| o.get("mount_program")),
        options.and_then(|o| o.get("mount_program")),
    ];
    let program = programs.into_iter().flatten().filter_map(Item::as_str).find(|p| !p.is_empty());
    match (name, program) {
        ("", _) => Driver::Unset,
        ("overlay", None) => Driver::Overlay,
        ("overlay", Some(program)) => Driver::OverlayBy(program.to_owned()),
        (other, _) => Driver::Other(other.to_owned()),
    }
}

/// Makes it native overlay; gives what was changed, nothing if it was that already.
pub fn make_native(doc: &mut DocumentMut) -> Result<Vec<String>, String> {
    let mut changes = Vec::new();
    let storage = doc.entry("storage").or_insert_with(|| Item::Table(Table::new()));
    let storage = storage.as_table_mut().ok_or("`storage` is not a section")?;
    match storage.get("driver").and_then(Item::as_str) {
        Some("overlay") => {}
        Some(other) => changes.push(format!("driver: \"{other}\" -> \"overlay\"")),
        None => changes.push("driver: set to \"overlay\"".to_owned()),
    }
    if !changes.is_empty() {
        storage["driver"] = value("overlay");
    }
    if let Some(options) = storage.get_mut("options").and_then(Item::as_table_like_mut) {
        if let Some(program) = options.remove("mount_program") {
            changes
                .push(format!("options.mount_program: removed ({})", program.to_string().trim()));
        }
        let overlay = options.get_mut("overlay").and_then(Item::as_table_like_mut);
        if let Some(program) = overlay.and_then(|overlay| overlay.remove("mount_program")) {
            let program = program.to_string();
            changes.push(format!("options.overlay.mount_program: removed ({})", program.trim()));
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(text: &str) -> (String, Vec<String>) {
        let mut doc: DocumentMut = text.parse().expect("TOML");
        let changes = make_native(&mut doc).expect("is a table");
        assert_eq!(driver_of(&doc), Driver::Overlay);
        (doc.to_string(), changes)
    }

    #[test]
    fn an_empty_file_gets_the_driver() {
        let (text, changes) = edit("");
        assert_eq!(text, "[storage]\ndriver = \"overlay\"\n");
        assert_eq!(changes.len(), 1);
    }

    #[test]
    fn foreign_settings_and_comments_stay() {
        let before = "# mine\n[storage]\ndriver = \"vfs\" # slow\ngraphroot = \"/x\"\n\n\
                      [storage.options]\nadditionalimagestores = [\"/images\"]\n\n\
                      [storage.options.overlay]\nmount_program = \"/usr/bin/fuse-overlayfs\"\n\
                      mountopt = \"nodev\"\n";
        let (text, changes) = edit(before);
        assert_eq!(changes.len(), 2, "{changes:?}");
        for kept in ["# mine", "graphroot = \"/x\"", "\"/images\"", "mountopt = \"nodev\""] {
            assert!(text.contains(kept), "{kept} is gone from {text}");
        }
        assert!(!text.contains("mount_program"), "{text}");
        let (again, changes) = edit(&text);
        assert_eq!((again, changes), (text, Vec::new()));
    }
}
