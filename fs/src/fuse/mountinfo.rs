//! What is mounted where, from `/proc/self/mountinfo` (proc(5)). Reading it asks no file system,
//! so it works with mounts whose daemon is gone or hangs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// `major:minor` of the file system, the name of its bdi.
    pub device: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Type, with the subtype behind a dot.
    pub fstype: String,
}

/// The topmost mount at `point`, which must have no symbolic links in it.
///
/// # Errors
/// Those of reading `/proc`.
pub fn mounted_at(point: &Path) -> io::Result<Option<Mounted>> {
    let all = fs::read("/proc/self/mountinfo")?;
    Ok(all.split(|&b| b == b'\n').filter_map(parse).rfind(|m| m.point == point))
}

/// A path without symbolic links, found without asking what is mounted at it.
///
/// # Errors
/// Where the directory above it is not there.
pub fn resolve(point: &Path) -> io::Result<PathBuf> {
    let point = std::path::absolute(point)?;
    match (point.parent(), point.file_name()) {
        (Some(above), Some(name)) => {
            let resolved = above.canonicalize()?.join(name);
            match fs::read_link(&resolved) {
                Ok(_) => resolved.canonicalize(),
                Err(_) => Ok(resolved),
            }
        }
        _ => Ok(point),
    }
}

fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|&b| b == b' ');
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let device = text(fields.nth(2)?);
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let fstype = text(fields.skip_while(|field| *field != b"-").nth(1)?);
    Some(Mounted { device, point, fstype })
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        };
        match (first, tail.get(..3).and_then(octal)) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_device_point_and_type() {
        let line = b"36 35 0:51 / /mnt/my\\040home rw,nosuid - fuse.yadokari yadokari rw,user_id=0";
        let mounted = parse(line).unwrap();
        assert_eq!(mounted.device, "0:51");
        assert_eq!(mounted.point, Path::new("/mnt/my home"));
        assert_eq!(mounted.fstype, "fuse.yadokari");
    }

    #[test]
    fn optional_fields_before_the_dash_do_not_confuse() {
        let line = b"36 35 98:0 / /mnt rw shared:1 master:2 - ext3 /dev/root rw";
        assert_eq!(parse(line).unwrap().fstype, "ext3");
    }
}
