//! Is root at the other end, or a server that root runs?
//!
//! The kernel says only that root made the connection. A reverse proxy that runs as root makes
//! such connections for everybody who asks it. So whoever holds the socket must not serve TCP
//! itself: no holder, nor a parent with the same program, has a listening TCP socket. What cannot
//! be seen (we are not root, the process is gone) does not count as root.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Parents that are looked at: a server that forks per connection is one above.
const PARENTS_MAX: usize = 4;
/// Descriptors of one process that are looked at; who has more is a server.
const DESCRIPTORS_MAX: usize = 65_536;

/// Whether only processes that serve nothing hold the socket.
pub fn is_plain_client(inode: u32) -> bool {
    let target = PathBuf::from(format!("socket:[{inode}]"));
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let mut holders = 0;
    for process in processes.flatten() {
        let is_process = process.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit());
        let path = process.path();
        if !is_process || !holds(&path, &target) {
            continue;
        }
        holders += 1;
        if serves_or_forked_from_a_server(&path) {
            return false;
        }
    }
    holders > 0
}

fn holds(process: &Path, target: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    let mut links = descriptors.flatten().filter_map(|d| fs::read_link(d.path()).ok());
    links.any(|link| link == target)
}

fn serves_or_forked_from_a_server(process: &Path) -> bool {
    let program = fs::read_link(process.join("exe")).ok();
    let mut current = process.to_owned();
    for _ in 0..=PARENTS_MAX {
        if serves(&current) {
            return true;
        }
        let Some(parent) = parent(&current) else { return false };
        let same = program.is_some() && fs::read_link(parent.join("exe")).ok() == program;
        if !same {
            return false;
        }
        current = parent;
    }
    true
}

fn parent(process: &Path) -> Option<PathBuf> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name may hold anything, parentheses included.
    let after_name = stat.rsplit_once(')')?.1;
    let parent: u32 = after_name.split_ascii_whitespace().nth(1)?.parse().ok()?;
    (parent > 1).then(|| PathBuf::from(format!("/proc/{parent}")))
}

/// Whether a process has a listening TCP socket; what cannot be seen counts as one.
fn serves(process: &Path) -> bool {
    let mut listening = HashSet::new();
    for table in ["net/tcp", "net/tcp6"] {
        match fs::read_to_string(process.join(table)) {
            Ok(text) => listening.extend(text.lines().filter_map(listener_inode)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => return true,
        }
    }
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return true };
    for (n, descriptor) in descriptors.flatten().enumerate() {
        if n > DESCRIPTORS_MAX {
            return true;
        }
        let inode = fs::read_link(descriptor.path()).ok().and_then(|link| {
            let link = link.to_str()?;
            link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        });
        if inode.is_some_and(|inode: u64| listening.contains(&inode)) {
            return true;
        }
    }
    false
}

/// The inode of a line of `/proc/net/tcp` in state LISTEN.
fn listener_inode(line: &str) -> Option<u64> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    (fields.nth(3)? == LISTEN).then(|| fields.nth(5)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::local::Diag;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_line_of_the_kernels_table_is_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 \
                    1000        0 741327 1 0000000000000000 100 0 0 10 0";
        assert_eq!(listener_inode(line), Some(741_327));
        assert_eq!(listener_inode(&line.replace(" 0A ", " 01 ")), None);
    }

    #[test]
    fn a_process_that_serves_is_no_plain_client() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let owner = Diag::default().owner(peer, server.local_addr().unwrap()).unwrap().unwrap();
        // This test is both: it holds the client's end and the listener.
        assert!(!is_plain_client(owner.inode));
    }

    #[test]
    fn a_socket_that_nobody_holds_is_no_plain_client() {
        assert!(!is_plain_client(0));
    }
}
