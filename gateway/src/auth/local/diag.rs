//! Socket diagnostics: `NETLINK_SOCK_DIAG` with `SOCK_DIAG_BY_FAMILY`, for one TCP socket.
//!
//! ```text
//! request   nlmsghdr (16)  inet_diag_req_v2 (56): family, protocol, ext, pad, states,
//!                          sport, dport (big endian), src[4], dst[4], interface, cookie[2]
//! answer    nlmsghdr (16)  inet_diag_msg (72): family, state, timer, retrans, the same socket
//!                          id (48), expires, rqueue, wqueue, uid, inode
//! ```
//!
//! Source of the layout: linux/inet_diag.h. The kernel answers an exact question with exactly
//! that socket, or with ENOENT; it may also find a listener on the same port, which the state
//! gives away.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
const ANSWER_BYTES: usize = HEADER_BYTES + 72;
const ESTABLISHED: u8 = 1;
const ANY: u32 = u32::MAX;
/// Answers to earlier questions that may still lie in the socket.
const STALE_MAX: usize = 16;

/// Who holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user who made it.
    pub uid: u32,
    /// Its inode, by which `/proc` shows who holds it.
    pub inode: u32,
}

/// A netlink socket, opened at the first question.
#[derive(Debug, Default)]
pub struct Diag {
    socket: Mutex<Option<(OwnedFd, u32)>>,
}

impl Diag {
    /// Who holds the socket whose own address is `mine` and that is connected to `theirs`;
    /// `None` if nobody does, or if it is not established.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn owner(&self, mine: SocketAddr, theirs: SocketAddr) -> io::Result<Option<Owner>> {
        let mut kept = self.socket.lock();
        let (socket, last) = match kept.take() {
            Some(open) => open,
            None => (open()?, 0),
        };
        let sequence = last.wrapping_add(1);
        let answer = ask(&socket, sequence, mine, theirs)?;
        // Only a socket that has answered is used again.
        *kept = Some((socket, sequence));
        Ok(answer)
    }
}

fn open() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = Some(netlink::SOCK_DIAG);
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

fn ask(
    socket: &OwnedFd,
    sequence: u32,
    mine: SocketAddr,
    theirs: SocketAddr,
) -> io::Result<Option<Owner>> {
    let Some(request) = request(sequence, mine, theirs) else { return Ok(None) };
    rustix::net::send(socket, &request, SendFlags::empty())?;
    let mut buffer = [0; 512];
    // The kernel answers while it takes the question, so nothing here waits.
    for _ in 0..STALE_MAX {
        let (bytes, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
        if let Some(answer) = answer(&buffer[..bytes], sequence, mine, theirs) {
            return answer;
        }
    }
    Err(io::Error::other("socket diagnostics: no answer to this question"))
}

fn request(sequence: u32, mine: SocketAddr, theirs: SocketAddr) -> Option<[u8; REQUEST_BYTES]> {
    let mut out = [0; REQUEST_BYTES];
    out[0..4].copy_from_slice(&u32::try_from(REQUEST_BYTES).ok()?.to_ne_bytes());
    out[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    out[8..12].copy_from_slice(&sequence.to_ne_bytes());
    let family = if mine.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    out[16] = u8::try_from(family.as_raw()).ok()?;
    out[17] = u8::try_from(libc::IPPROTO_TCP).ok()?;
    out[20..24].copy_from_slice(&ANY.to_ne_bytes());
    out[24..60].copy_from_slice(&socket_id(mine, theirs)?);
    out[64..72].fill(u8::MAX);
    Some(out)
}

/// Ports and addresses as they stand in request and answer.
fn socket_id(mine: SocketAddr, theirs: SocketAddr) -> Option<[u8; 36]> {
    let mut out = [0; 36];
    out[0..2].copy_from_slice(&mine.port().to_be_bytes());
    out[2..4].copy_from_slice(&theirs.port().to_be_bytes());
    match (mine.ip(), theirs.ip()) {
        (IpAddr::V4(mine), IpAddr::V4(theirs)) => {
            out[4..8].copy_from_slice(&mine.octets());
            out[20..24].copy_from_slice(&theirs.octets());
        }
        (IpAddr::V6(mine), IpAddr::V6(theirs)) => {
            out[4..20].copy_from_slice(&mine.octets());
            out[20..36].copy_from_slice(&theirs.octets());
        }
        _ => return None,
    }
    Some(out)
}

/// `None` for an answer to another question.
fn answer(
    bytes: &[u8],
    sequence: u32,
    mine: SocketAddr,
    theirs: SocketAddr,
) -> Option<io::Result<Option<Owner>>> {
    let word = |at: usize| {
        bytes.get(at..at + 4).map(|b| u32::from_ne_bytes(b.try_into().expect("are four")))
    };
    if word(8)? != sequence {
        return None;
    }
    let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    if kind == NLMSG_ERROR {
        let errno = i32::from_ne_bytes(word(16)?.to_ne_bytes()).wrapping_neg();
        let error = io::Error::from_raw_os_error(errno);
        let gone = errno == libc::ENOENT;
        return Some(if gone { Ok(None) } else { Err(error) });
    }
    if kind != SOCK_DIAG_BY_FAMILY || bytes.len() < ANSWER_BYTES {
        return Some(Ok(None));
    }
    let state = bytes[17];
    let same = is_the_one(bytes[16], &bytes[20..56], mine, theirs);
    let (uid, inode) = (word(80)?, word(84)?);
    let counts = same && state == ESTABLISHED && inode != 0;
    Some(Ok(counts.then_some(Owner { uid, inode })))
}

/// Whether the kernel's answer is about the socket that was asked for. A client may have reached
/// an IPv4 address with an IPv6 socket; the kernel then shows the mapped addresses. Of IPv4
/// addresses only the first word counts; the kernel leaves the rest as it likes.
fn is_the_one(family: u8, found: &[u8], mine: SocketAddr, theirs: SocketAddr) -> bool {
    let is_v6 = u16::from(family) == AddressFamily::INET6.as_raw();
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    let wanted = match is_v6 {
        true => socket_id(mapped(mine), mapped(theirs)),
        false => socket_id(mine, theirs),
    };
    let Some(wanted) = wanted else { return false };
    if is_v6 {
        return found == wanted;
    }
    found[..8] == wanted[..8] && found[20..24] == wanted[20..24]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener, TcpStream};

    fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (client, server)
    }

    fn asked(diag: &Diag, server: &TcpStream) -> Option<Owner> {
        diag.owner(server.peer_addr().unwrap(), server.local_addr().unwrap()).unwrap()
    }

    #[test]
    fn the_owner_of_an_established_connection_is_found() {
        let diag = Diag::default();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(_listener) = TcpListener::bind(address) else { continue };
            let (_client, server) = pair(address);
            let owner = asked(&diag, &server).expect("is connected");
            assert_eq!(owner.uid, rustix::process::getuid().as_raw());
            assert_ne!(owner.inode, 0);
        }
    }

    #[test]
    fn who_has_closed_half_closed_or_reset_is_nobody() {
        let diag = Diag::default();
        let (client, server) = pair("127.0.0.1:0");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(asked(&diag, &server), None, "half closed");
        drop(client);
        assert_eq!(asked(&diag, &server), None, "closed");
        let (client, server) = pair("127.0.0.1:0");
        rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
        let (peer, local) = (server.peer_addr().unwrap(), server.local_addr().unwrap());
        drop(client);
        assert_eq!(diag.owner(peer, local).unwrap(), None, "reset");
    }

    #[test]
    fn a_listener_on_the_same_port_is_not_the_client() {
        let diag = Diag::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mine = listener.local_addr().unwrap();
        assert_eq!(diag.owner(mine, "127.0.0.1:1".parse().unwrap()).unwrap(), None);
    }

    #[test]
    fn a_client_that_speaks_ipv6_to_an_ipv4_address_is_found_as_well() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let Ok(_client) = TcpStream::connect(format!("[::ffff:127.0.0.1]:{port}")) else { return };
        let (server, _) = listener.accept().unwrap();
        assert!(asked(&Diag::default(), &server).is_some());
    }
}
