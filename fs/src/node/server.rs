//! The control socket: takes requests, finds out who asks, and answers.
//!
//! Everybody may connect; what a caller may do follows the user id that the kernel gives for
//! the other end. Root and the daemon's own user may do everything; others may see and use
//! homes that belong to them.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use super::commands::{Answer, Commands};
use super::control::{Failure, FailureKind, LINE_BYTES_MAX, Progress, Reply, Request};

/// Commands that may be connected at once.
const CONNECTIONS_MAX: usize = 256;
/// Descriptors that wait for their request; more than one is a mistake.
const DESCRIPTORS_MAX: usize = 1;
/// How often a command hears how far its work is.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Makes the socket, in place of one that a dead daemon left: the caller holds the lock.
///
/// # Errors
/// Those of the system.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above)?;
        std::fs::set_permissions(above, std::fs::Permissions::from_mode(0o755))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves until the task is aborted.
pub async fn serve(listener: UnixListener, commands: Arc<Commands>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let commands = Arc::clone(&commands);
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &commands).await {
                        tracing::debug!(%error, "a command hung up");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::error!(%error, "the control socket takes no connection");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, commands: &Commands) -> io::Result<()> {
    let caller = stream.peer_cred()?.uid();
    let mut lines = Lines { stream, bytes: Vec::new(), descriptors: VecDeque::new() };
    while let Some((line, descriptor)) = lines.next().await? {
        let reply = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => {
                let (report, so_far) = watch::channel(None);
                let work = commands.run(caller, request, descriptor, &report);
                telling(&mut lines, so_far, work).await?
            }
            Err(error) => Err(Failure {
                kind: FailureKind::Usage,
                message: format!("the daemon does not know this request: {error}"),
            }),
        };
        let reply = match reply {
            Ok(value) => Reply::Done(value),
            Err(failure) => Reply::Failed(failure),
        };
        lines.say(&reply).await?;
    }
    Ok(())
}

/// Waits for `work` and says meanwhile how far it is. Work that reports ends when nobody listens
/// any more.
async fn telling(
    lines: &mut Lines,
    mut so_far: watch::Receiver<Option<Progress>>,
    work: impl Future<Output = Answer>,
) -> io::Result<Answer> {
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(PROGRESS_EVERY, &mut work).await {
            Ok(answer) => return Ok(answer),
            Err(_) if so_far.has_changed().unwrap_or(false) => {
                let progress = so_far.borrow_and_update().clone();
                if let Some(progress) = progress {
                    lines.say(&Reply::Progress(progress)).await?;
                }
            }
            Err(_) => {}
        }
    }
}

/// Reads lines and the descriptors that come along.
struct Lines {
    stream: UnixStream,
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Lines {
    async fn say(&mut self, reply: &Reply) -> io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        self.stream.write_all(&line).await
    }

    async fn next(&mut self) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
        loop {
            if let Some(end) = self.bytes.iter().position(|&b| b == b'\n') {
                let line = self.bytes.drain(..=end).collect();
                return Ok(Some((line, self.descriptors.pop_front())));
            }
            if self.bytes.len() > LINE_BYTES_MAX {
                return Err(io::Error::other("a line is too long"));
            }
            if self.receive().await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn receive(&mut self) -> io::Result<usize> {
        let mut chunk = [0u8; 4096];
        let mut fds = Vec::new();
        let received = self
            .stream
            .async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = RecvAncillaryBuffer::new(&mut space);
                let mut buffers = [IoSliceMut::new(&mut chunk)];
                let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
                let socket = self.stream.as_fd();
                let got = rustix::net::recvmsg(socket, &mut buffers, &mut ancillary, flags)?;
                for message in ancillary.drain() {
                    if let RecvAncillaryMessage::ScmRights(sent) = message {
                        fds.extend(sent);
                    }
                }
                Ok(got.bytes)
            })
            .await?;
        self.bytes.extend_from_slice(&chunk[..received]);
        self.descriptors.extend(fds);
        self.descriptors.truncate(DESCRIPTORS_MAX);
        Ok(received)
    }
}
