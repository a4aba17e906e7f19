//! The contents of a new home: a copy of `/etc/skel`, modes and symbolic links kept, everything
//! owned by the home's owner.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::home::{Attr, Caller, ErrorKind, Home, Ino, Kind, Name, NewNode, Result, WriteMode};

/// Files beyond this are not copied: a skeleton holds settings.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Deepest directory that is copied.
const DEPTH_MAX: usize = 32;

/// Whether a home was never written to: it holds its root only, as it was made.
#[must_use]
pub fn is_untouched(root: &Attr, inodes: u64) -> bool {
    inodes <= 1 && root.mtime == root.btime
}

/// Copies `skeleton` into the root of a home. A file that cannot be read is left out, with a
/// word in the log: a home without it is better than none.
///
/// # Errors
/// Those of the home.
pub async fn fill(home: &Home, owner: (u32, u32), skeleton: &Path) -> Result<()> {
    let client = home.attach();
    let caller = Caller { uid: owner.0, gid: owner.1, client };
    let mut open = vec![(skeleton.to_owned(), Ino::ROOT, 0)];
    let mut result = Ok(());
    while let Some((directory, ino, depth)) = open.pop() {
        match copy_directory(home, &caller, &directory, ino).await {
            Ok(below) if depth < DEPTH_MAX => {
                open.extend(below.into_iter().map(|(path, ino)| (path, ino, depth + 1)));
            }
            Ok(_) => {}
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    home.detach(client);
    result
}

/// Copies the entries of one directory; gives its subdirectories.
async fn copy_directory(
    home: &Home,
    caller: &Caller,
    directory: &Path,
    ino: Ino,
) -> Result<Vec<(PathBuf, Ino)>> {
    let mut below = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "not copied");
            return Ok(below);
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let (node, data) = match read_entry(&path) {
            Ok(Some(read)) => read,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "not copied");
                continue;
            }
        };
        let name = Name::new(entry.file_name().as_bytes())?;
        let is_dir = node.kind == Kind::Dir;
        let made = match home.make(caller.clone(), ino, name, node).await {
            Ok(made) => made,
            Err(error) if matches!(error.kind(), ErrorKind::Exists) => continue,
            Err(error) => return Err(error),
        };
        if is_dir {
            below.push((path, made.ino));
        } else if !data.is_empty() {
            home.write(caller.clone(), made.ino, 0, data, WriteMode::default()).await?;
        }
    }
    Ok(below)
}

/// The inode that a path of the skeleton becomes, with its contents; `None` for what is not
/// copied.
fn read_entry(path: &Path) -> io::Result<Option<(NewNode, Bytes)>> {
    let meta = path.symlink_metadata()?;
    let file_type = meta.file_type();
    let (kind, target, data) = if file_type.is_dir() {
        (Kind::Dir, Bytes::new(), Bytes::new())
    } else if file_type.is_symlink() {
        let target = std::fs::read_link(path)?;
        (Kind::Symlink, Bytes::copy_from_slice(target.as_os_str().as_bytes()), Bytes::new())
    } else if file_type.is_fifo() {
        (Kind::Fifo, Bytes::new(), Bytes::new())
    } else if file_type.is_file() && meta.len() <= FILE_BYTES_MAX {
        (Kind::File, Bytes::new(), std::fs::read(path)?.into())
    } else {
        return Ok(None);
    };
    let perm = (meta.mode() & 0o7777) as u16;
    Ok(Some((NewNode { kind, perm, umask: 0, rdev: 0, target }, data)))
}
