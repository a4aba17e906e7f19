//! Speaks to a running daemon; what the command line uses. Blocking, as commands are.

use std::io::{self, BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::de::DeserializeOwned;

use super::control::{Failure, Progress, Reply, Request, SOCKET};

/// Why a daemon cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon runs on this data directory.
    #[error("no daemon runs on {0}")]
    NotRunning(PathBuf),
    /// The daemon answered that it did not do it.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The connection broke, or the answer cannot be read.
    #[error("the daemon does not answer: {0}")]
    Io(#[from] io::Error),
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon of `data_dir`.
    ///
    /// # Errors
    /// `NotRunning` where there is none.
    pub fn connect(data_dir: &Path) -> Result<Self, ClientError> {
        match UnixStream::connect(data_dir.join(SOCKET)) {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream) }),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    Err(ClientError::NotRunning(data_dir.to_owned()))
                }
                _ => Err(error.into()),
            },
        }
    }

    /// Asks and waits for the answer, read as the type that the request's documentation names.
    ///
    /// # Errors
    /// `Failed` with the daemon's reason.
    pub fn request<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        self.request_with(request, None, |_| {})
    }

    /// The same, with a descriptor that goes along and progress that is shown.
    ///
    /// # Errors
    /// `Failed` with the daemon's reason.
    pub fn request_with<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        descriptor: Option<BorrowedFd<'_>>,
        mut progress: impl FnMut(Progress),
    ) -> Result<T, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
        line.push(b'\n');
        self.send(&line, descriptor)?;
        loop {
            let mut answer = String::new();
            if self.stream.read_line(&mut answer)? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            match serde_json::from_str(&answer).map_err(io::Error::from)? {
                Reply::Progress(so_far) => progress(so_far),
                Reply::Done(value) => {
                    return Ok(serde_json::from_value(value).map_err(io::Error::from)?);
                }
                Reply::Failed(failure) => return Err(failure.into()),
            }
        }
    }

    /// Has `home` shown at the directory `path`.
    ///
    /// # Errors
    /// `Failed` with the daemon's reason; those of opening the directory.
    pub fn mount(&mut self, home: &str, path: &Path) -> Result<PathBuf, ClientError> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?;
        let request = Request::Mount { home: home.to_owned(), path: path.to_owned() };
        self.request_with(&request, Some(directory.as_fd()), |_| {})
    }

    fn send(&mut self, line: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let Some(descriptor) = descriptor else {
            return self.stream.get_mut().write_all(line);
        };
        let descriptors = [descriptor];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        let stream = self.stream.get_mut();
        let buffers = [IoSlice::new(line)];
        let sent = rustix::net::sendmsg(&*stream, &buffers, &mut ancillary, SendFlags::NOSIGNAL)?;
        stream.write_all(&line[sent..])
    }
}
