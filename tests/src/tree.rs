//! A tree of files as a value: what must be equal after a copy, an unpacking, a restart.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs as rfs;

/// One entry of a tree.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Size of files and links.
    pub size: u64,
    /// Links; of directories too.
    pub nlink: u64,
    /// Device number of device nodes.
    pub rdev: u64,
    /// Seconds and nanoseconds, when [`Options::times`].
    pub mtime: Option<(i64, i64)>,
    /// BLAKE3 of the contents or target.
    pub content: String,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mode, owner, size, nlink, rdev, mtime, content, xattrs } = self;
        write!(f, "mode {mode:o} owner {owner:?} size {size} nlink {nlink} rdev {rdev} ")?;
        write!(f, "mtime {mtime:?} content {} xattrs {xattrs:?}", &content[..content.len().min(16)])
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Modification times.
    pub times: bool,
    /// Extended attributes, ACLs among them.
    pub xattrs: bool,
}

/// Names (relative) to nodes.
pub type Tree = BTreeMap<PathBuf, Node>;

/// Reads the whole tree below `root`, the root itself included as the empty path.
///
/// # Errors
/// When anything cannot be read.
pub fn read(root: &Path, options: Options) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(relative) = todo.pop() {
        let path =
            if relative.as_os_str().is_empty() { root.to_owned() } else { root.join(&relative) };
        let node = node(&path, options).with_context(|| format!("reading {}", path.display()))?;
        if node.mode & libc::S_IFMT == libc::S_IFDIR {
            for entry in fs::read_dir(&path)? {
                todo.push(relative.join(entry?.file_name()));
            }
        }
        tree.insert(relative, node);
    }
    Ok(tree)
}

/// Wants two trees to be equal; the error lists the first differences.
///
/// # Errors
/// When they differ.
pub fn same(what: &str, left: &Tree, right: &Tree) -> Result<()> {
    const SHOWN_MAX: usize = 12;
    let mut differences = Vec::new();
    for path in left.keys().chain(right.keys().filter(|path| !left.contains_key(*path))) {
        match (left.get(path), right.get(path)) {
            (Some(l), Some(r)) if l == r => {}
            (l, r) => differences.push(format!(
                "  {}\n    left:  {}\n    right: {}",
                path.display(),
                l.map_or_else(|| "missing".to_owned(), |node| format!("{node:?}")),
                r.map_or_else(|| "missing".to_owned(), |node| format!("{node:?}")),
            )),
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    let count = differences.len();
    differences.truncate(SHOWN_MAX);
    bail!("{what}: {count} entries differ:\n{}", differences.join("\n"))
}

fn node(path: &Path, options: Options) -> Result<Node> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let content = if kind.is_file() {
        hash_file(path)?
    } else if kind.is_symlink() {
        blake3::hash(fs::read_link(path)?.as_os_str().as_bytes()).to_hex().to_string()
    } else {
        String::new()
    };
    let device = kind.is_char_device() || kind.is_block_device();
    Ok(Node {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        size: if kind.is_file() || kind.is_symlink() { meta.size() } else { 0 },
        // Some local file systems count a directory's links differently (btrfs: always 1).
        nlink: if kind.is_dir() { 0 } else { meta.nlink() },
        rdev: if device { meta.rdev() } else { 0 },
        mtime: options.times.then(|| (meta.mtime(), meta.mtime_nsec())),
        content,
        xattrs: if options.xattrs { xattrs(path)? } else { BTreeMap::new() },
    })
}

/// BLAKE3 of a file, in hex.
///
/// # Errors
/// When it cannot be read.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            count => hasher.update(&buffer[..count]),
        };
    }
}

/// All extended attributes that the caller may see.
///
/// # Errors
/// When they cannot be read.
pub fn xattrs(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec![0_u8; 64 << 10];
    let length = rfs::llistxattr(path, &mut names[..])?;
    let mut all = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 64 << 10];
        let length = rfs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(length);
        all.insert(String::from_utf8_lossy(name).into_owned(), value);
    }
    Ok(all)
}
