//! The client: HTTP/1.1 on connections that stay open, with as little work per byte as it goes.
//! Bodies that are pulled are read and thrown away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::source::Source;

/// A registry that says nothing for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(120);
const READ_BYTES: usize = 256 << 10;

/// Who asks whom.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// The whole value of `Authorization`, where the registry wants one.
    pub authorization: Option<String>,
}

/// A connection.
#[derive(Debug)]
pub struct Wire {
    peer: Peer,
    stream: BufReader<TcpStream>,
    buffer: Vec<u8>,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    None,
    Bytes(&'a [u8], &'a str),
    Blob(&'a Source),
}

/// What came back.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    /// The body, if it was to be kept.
    pub body: Vec<u8>,
    /// How long it was.
    pub len: u64,
}

impl Peer {
    /// The head of a request.
    pub fn head(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> String {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.address);
        if let Some(value) = &self.authorization {
            head += &format!("Authorization: {value}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head
    }
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// When nobody is there.
    pub fn open(peer: &Peer) -> Result<Self> {
        let stream = TcpStream::connect(peer.address).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        let stream = BufReader::with_capacity(READ_BYTES, stream);
        Ok(Self { peer: peer.clone(), stream, buffer: vec![0; READ_BYTES] })
    }

    /// Asks, and throws the body of the answer away.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn call(&mut self, method: &str, target: &str, body: Body<'_>) -> Result<Answer> {
        self.ask(method, target, body, false).with_context(|| format!("{method} {target}"))
    }

    /// Asks, and keeps the body.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn fetch(&mut self, method: &str, target: &str) -> Result<Answer> {
        self.ask(method, target, Body::None, true).with_context(|| format!("{method} {target}"))
    }

    fn ask(&mut self, method: &str, target: &str, body: Body<'_>, keep: bool) -> Result<Answer> {
        let target = match target.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => target,
        };
        let (len, kind) = match body {
            Body::None => (0, None),
            Body::Bytes(bytes, kind) => (bytes.len() as u64, Some(kind)),
            Body::Blob(source) => (source.len(), Some("application/octet-stream")),
        };
        let len = len.to_string();
        let mut headers = vec![("Accept", super::source::IMAGE)];
        if let Some(kind) = kind {
            headers.push(("Content-Type", kind));
        }
        if method != "GET" && method != "HEAD" {
            headers.push(("Content-Length", &len));
        }
        let head = self.peer.head(method, target, &headers) + "\r\n";
        let to = self.stream.get_mut();
        match body {
            Body::None => to.write_all(head.as_bytes())?,
            Body::Bytes(bytes, _) => to.write_all(&[head.as_bytes(), bytes].concat())?,
            Body::Blob(source) => {
                to.write_all(head.as_bytes())?;
                source.pieces().try_for_each(|piece| to.write_all(piece))?;
            }
        }
        self.answer(method == "HEAD", keep)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line)?;
        ensure!(read > 0, "the registry closed the connection");
        Ok(line.trim_end().to_owned())
    }

    fn answer(&mut self, is_head: bool, keep: bool) -> Result<Answer> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut answer = Answer { status: status.context("a status line")?, ..Answer::default() };
        let (mut len, mut chunked) = (0, false);
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => len = value.trim().parse()?,
                "transfer-encoding" => chunked = value.contains("chunked"),
                "location" => answer.location = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        if is_head || matches!(answer.status, 204 | 304) {
            return Ok(answer);
        }
        let keep = keep || answer.status >= 400;
        if !chunked {
            self.body(len, keep, &mut answer)?;
            return Ok(answer);
        }
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(size.trim(), 16).context("the length of a chunk")?;
            self.body(size, keep, &mut answer)?;
            self.line()?;
            if size == 0 {
                return Ok(answer);
            }
        }
    }

    fn body(&mut self, len: u64, keep: bool, answer: &mut Answer) -> Result<()> {
        let mut left = len;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let read = self.stream.read(&mut self.buffer[..want])?;
            ensure!(read > 0, "a body ended {left} bytes early");
            if keep {
                answer.body.extend_from_slice(&self.buffer[..read]);
            }
            left -= read as u64;
        }
        answer.len += len;
        Ok(())
    }

    /// Pushes a blob as Docker and Podman do: POST, PATCH with all of it, PUT.
    ///
    /// # Errors
    /// Any refusal.
    pub fn push(&mut self, repo: &str, source: &Source) -> Result<()> {
        let begun =
            self.call("POST", &format!("/v2/{repo}/blobs/uploads/"), Body::None)?.is(202)?;
        let patched = self.call("PATCH", &begun.at()?, Body::Blob(source))?.is(202)?;
        let end = patched.at()?;
        let sign = if end.contains('?') { '&' } else { '?' };
        let end = format!("{end}{sign}digest={}", source.digest());
        self.call("PUT", &end, Body::None)?.is(201)?;
        Ok(())
    }

    /// Pulls a blob.
    ///
    /// # Errors
    /// Any answer but all of it.
    pub fn pull(&mut self, repo: &str, source: &Source) -> Result<()> {
        let path = format!("/v2/{repo}/blobs/{}", source.digest());
        let got = self.call("GET", &path, Body::None)?.is(200)?;
        ensure!(got.len == source.len(), "{} bytes instead of {}", got.len, source.len());
        Ok(())
    }

    /// Puts a manifest.
    ///
    /// # Errors
    /// Any refusal.
    pub fn put_manifest(&mut self, repo: &str, tag: &str, manifest: &str) -> Result<()> {
        let body = Body::Bytes(manifest.as_bytes(), super::source::IMAGE);
        self.call("PUT", &format!("/v2/{repo}/manifests/{tag}"), body)?.is(201)?;
        Ok(())
    }
}

impl Answer {
    /// This status and no other.
    ///
    /// # Errors
    /// With what the registry said instead.
    pub fn is(self, status: u16) -> Result<Self> {
        if self.status != status {
            let said = String::from_utf8_lossy(&self.body);
            bail!("{} instead of {status}: {said}", self.status);
        }
        Ok(self)
    }

    fn at(&self) -> Result<String> {
        self.location.clone().context("no Location")
    }
}
