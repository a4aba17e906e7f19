//! Files of other programs, replaced whole, so that none of them ever reads half of one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;

/// Writes `text`. A file that is there keeps its permissions; a new one that is `for_all` can be
/// read by everybody, whatever the caller's mask.
///
/// # Errors
/// I/O, with the file's name.
pub fn replace(file: &Path, text: &str, for_all: bool) -> anyhow::Result<()> {
    try_replace(file, text, for_all).with_context(|| format!("writing {}", file.display()))
}

fn try_replace(file: &Path, text: &str, for_all: bool) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    // Podman and shells read every file with the right ending: the unfinished one has another.
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let fresh = folder.join(format!(".{name}.{}", std::process::id()));
    let filled = std::fs::write(&fresh, text).and_then(|()| {
        if let Ok(old) = std::fs::metadata(file) {
            std::fs::set_permissions(&fresh, old.permissions())?;
        } else if for_all {
            std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o644))?;
        }
        std::fs::rename(&fresh, file)
    });
    filled.inspect_err(|_| {
        let _gone = std::fs::remove_file(&fresh);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_whole_alone_and_as_open_as_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("containers/storage.conf");
        replace(&file, "[storage]\n", true).expect("written");
        let mode = |file: &Path| file.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o644);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("closed");
        replace(&file, "[other]\n", true).expect("written again");
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "[other]\n");
        assert_eq!(mode(&file), 0o600);
        assert_eq!(std::fs::read_dir(file.parent().expect("has one")).expect("listed").count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_named_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("taken");
        std::fs::create_dir_all(file.join("by a directory")).expect("made");
        let why = replace(&file, "", false).expect_err("a directory is there").to_string();
        assert!(why.contains("taken"), "{why}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
    }
}
