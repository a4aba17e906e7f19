//! Mounting and unmounting: by the system call where the daemon may, else by `fusermount3`.
//!
//! Mounts are `nosuid` and `nodev` (see `fs/decisions/0002-mount-options.md`). A mount that an earlier
//! daemon left dead is detached; one that lives is never touched.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::mountinfo::{self, Mounted};

/// The type that mounts have in mountinfo.
pub const FSTYPE: &str = "fuse.yadokari";
const SOURCE: &str = "yadokari";

/// Read-ahead of a file that is read from front to back. The kernel's own default is 128 KiB,
/// too little for a store whose answer takes a millisecond.
const READ_AHEAD_KIB: u32 = 4096;

/// Who may use a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, as far as permissions allow.
    All,
    /// This user and group only.
    Only(u32, u32),
}

/// Why a directory cannot be mounted on.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A living file system of ours is there.
    #[error("{0} is a mount of another daemon that lives")]
    Taken(PathBuf),
    /// `fusermount3` refused.
    #[error("fusermount3 does not mount {0}: {1}")]
    Helper(PathBuf, String),
    /// Some system call failed.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// A directory that is going to be a mount.
#[derive(Debug)]
pub struct MountPoint {
    path: PathBuf,
    directory: OwnedFd,
}

impl MountPoint {
    /// Prepares `path`: detaches what a dead daemon left there, makes the directory where it
    /// is missing and `make` says so.
    ///
    /// # Errors
    /// `Taken` by a living mount of ours; those of the system.
    pub fn prepare(path: &Path, make: bool) -> Result<Self, MountError> {
        let io = |error: io::Error| MountError::Io(path.to_owned(), error);
        if make && let Some(above) = path.parent() {
            std::fs::create_dir_all(above).map_err(io)?;
        }
        let resolved = mountinfo::resolve(path).map_err(io)?;
        while let Some(mounted) = mountinfo::mounted_at(&resolved).map_err(io)? {
            if mounted.fstype != FSTYPE {
                break;
            }
            if !is_dead(&resolved) {
                return Err(MountError::Taken(resolved));
            }
            tracing::info!(point = %resolved.display(), "detaching what a dead daemon left");
            unmount(&resolved, true).map_err(io)?;
        }
        if make && !resolved.exists() {
            std::fs::create_dir(&resolved).map_err(io)?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&resolved, flags, Mode::empty());
        let directory = directory.map_err(|errno| io(errno.into()))?;
        Ok(Self { path: resolved, directory })
    }

    /// A directory that another process opened and handed over; `path` is what it calls it.
    #[must_use]
    pub fn from_fd(directory: OwnedFd, path: PathBuf) -> Self {
        Self { path, directory }
    }

    /// The path, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory below the mount.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Mounts and gives the connection to the kernel.
    ///
    /// # Errors
    /// Those of the system or of `fusermount3`.
    pub fn mount(&self, access: Access) -> Result<OwnedFd, MountError> {
        let io = |error: io::Error| MountError::Io(self.path.clone(), error);
        match self.mount_by_call(access) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => self.mount_by_helper(access),
            result => result.map_err(io),
        }
    }

    fn mount_by_call(&self, access: Access) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
        let (uid, gid) = match access {
            Access::All => (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()),
            Access::Only(uid, gid) => (uid, gid),
        };
        let other = if access == Access::All { ",allow_other" } else { "" };
        let fd = device.as_raw_fd();
        let data = format!(
            "fd={fd},rootmode=40000,user_id={uid},group_id={gid},default_permissions{other}"
        );
        // By its descriptor, so that nobody can put another directory in its place.
        let target = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        let data = std::ffi::CString::new(data).expect("numbers and words have no NUL");
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        rustix::mount::mount(SOURCE, target, FSTYPE, flags, Some(data.as_c_str()))?;
        Ok(device)
    }

    /// `fusermount3` mounts and sends the connection through a socket that it inherits.
    fn mount_by_helper(&self, access: Access) -> Result<OwnedFd, MountError> {
        let io = |error: io::Error| MountError::Io(self.path.clone(), error);
        let (ours, theirs) = UnixStream::pair().map_err(io)?;
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).map_err(|e| io(e.into()))?;
        let other = if access == Access::All { ",allow_other" } else { "" };
        let options = format!("default_permissions,subtype=yadokari,fsname=yadokari{other}");
        let helper = Command::new("fusermount3")
            .args(["-o", &options, "--"])
            .arg(&self.path)
            .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io)?;
        drop(theirs);
        let device = receive_fd(&ours);
        let said = helper.wait_with_output().map_err(io)?;
        match device {
            Ok(Some(device)) if said.status.success() => Ok(device),
            _ => {
                let said = String::from_utf8_lossy(&said.stderr).trim().to_owned();
                Err(MountError::Helper(self.path.clone(), said))
            }
        }
    }
}

/// Takes one file descriptor from a socket.
///
/// # Errors
/// Those of the socket.
pub fn receive_fd(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    Ok(ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}

/// Whether the daemon of the mount at `point` is gone.
fn is_dead(point: &Path) -> bool {
    matches!(rustix::fs::statfs(point), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// Unmounts; `lazy` detaches it now and lets open files go on until they are closed.
///
/// # Errors
/// `EBUSY` where it is in use and not `lazy`; those of the system.
pub fn unmount(point: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(point, flags | UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM) => unmount_by_helper(point, lazy),
        result => Ok(result?),
    }
}

fn unmount_by_helper(point: &Path, lazy: bool) -> io::Result<()> {
    let how = if lazy { "-uz" } else { "-u" };
    let said = Command::new("fusermount3").args([how, "--"]).arg(point).output()?;
    match said.status.success() {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            String::from_utf8_lossy(&said.stderr).trim().to_owned(),
        )),
    }
}

/// The mount of ours at `point`, dead or alive.
///
/// # Errors
/// Those of reading `/proc`.
pub fn ours_at(point: &Path) -> io::Result<Option<Mounted>> {
    let mounted = mountinfo::mounted_at(&mountinfo::resolve(point)?)?;
    Ok(mounted.filter(|mounted| mounted.fstype == FSTYPE))
}

/// Lets the kernel read further ahead; only root may, others keep the default.
pub fn raise_read_ahead(point: &Path) {
    let Ok(Some(mounted)) = mountinfo::mounted_at(point) else {
        return;
    };
    let setting = format!("/sys/class/bdi/{}/read_ahead_kb", mounted.device);
    if let Err(error) = std::fs::write(&setting, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(setting, %error, "read-ahead keeps the kernel's default");
    }
}
