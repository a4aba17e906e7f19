//! Object paths as file names.
//!
//! An object is a file `NAME=`, a path segment above it a directory `NAME`, so that an object
//! `a` and an object `a/b` can exist side by side as they can in any object store. A directory
//! whose own name would look like an object's gets a `+` behind it; so no two paths share a file
//! and each file name gives back its path.

use crate::error::Detail;
use object_store::path::Path;
use std::path::PathBuf;

/// NAME_MAX of Linux file systems.
const NAME_BYTES_MAX: usize = 255;
/// The directory of the store's own files; no object path may begin with it.
pub(super) const OWN: &str = ".yadokari";

const STORE: &str = super::STORE;

/// The file of an object, relative to the root.
pub(super) fn object_file(location: &Path) -> object_store::Result<PathBuf> {
    let mut segments = location.as_ref().split('/');
    let leaf = segments.next_back().unwrap_or_default();
    let mut file = directory_of(location, segments)?;
    if leaf.is_empty() {
        return Err(invalid(location, "an object needs a name"));
    }
    file.push(checked(location, format!("{leaf}="))?);
    Ok(file)
}

/// The directory that holds everything below a prefix, relative to the root.
pub(super) fn prefix_directory(prefix: &Path) -> object_store::Result<PathBuf> {
    directory_of(prefix, prefix.as_ref().split('/').filter(|segment| !segment.is_empty()))
}

/// The segment that a directory stands for.
pub(super) fn segment_of_directory(name: &str) -> &str {
    if looks_like_object(name) { &name[..name.len() - 1] } else { name }
}

/// The last segment of the object that a file holds, or None for a file that is none of ours.
pub(super) fn segment_of_file(name: &str) -> Option<&str> {
    name.strip_suffix('=').filter(|segment| !segment.is_empty())
}

fn directory_of<'a>(
    path: &Path,
    segments: impl Iterator<Item = &'a str>,
) -> object_store::Result<PathBuf> {
    let mut directory = PathBuf::new();
    for (depth, segment) in segments.enumerate() {
        if depth == 0 && segment == OWN {
            return Err(invalid(path, "the store keeps `.yadokari` to itself"));
        }
        let plus = if looks_like_object(segment) { "+" } else { "" };
        directory.push(checked(path, format!("{segment}{plus}"))?);
    }
    Ok(directory)
}

fn looks_like_object(name: &str) -> bool {
    name.trim_end_matches('+').ends_with('=')
}

fn checked(path: &Path, name: String) -> object_store::Result<String> {
    if name.len() > NAME_BYTES_MAX {
        return Err(invalid(path, "a part of the path is longer than a file name may be"));
    }
    Ok(name)
}

fn invalid(path: &Path, why: &str) -> object_store::Error {
    let object = path.to_string();
    Detail::Invalid { operation: "naming", object, why: why.to_owned() }.at(STORE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_paths_share_a_file_and_every_name_reads_back() {
        let segments = ["a", "a=", "a=+", "a+", "a=++", "=", "+", "=+"];
        let mut names = HashSet::new();
        for segment in segments {
            let path = Path::parse(segment).expect("a path");
            let file = object_file(&path).expect("a file");
            let file = file.to_str().expect("UTF-8");
            let directory = prefix_directory(&path).expect("a directory");
            let directory = directory.to_str().expect("UTF-8");
            assert_eq!(segment_of_file(file), Some(segment));
            assert_eq!(segment_of_directory(directory), segment);
            assert!(names.insert(file.to_owned()), "{file}");
            assert!(names.insert(directory.to_owned()), "{directory}");
        }
    }

    #[test]
    fn the_stores_own_directory_and_long_names_are_refused() {
        for path in
            [".yadokari/tmp/x".to_owned(), "x".repeat(255), format!("{}/x", "y".repeat(256))]
        {
            assert!(object_file(&Path::parse(path).expect("a path")).is_err());
        }
    }
}
