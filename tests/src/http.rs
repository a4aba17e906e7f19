//! A plain HTTP/1.1 client that sends exactly what it is told: odd paths, half bodies, chunks one
//! by one. One connection per request, every read and write with a limit.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Generous: two cores, many tests.
const TIME_MAX: Duration = Duration::from_secs(120);

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunked: bool,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// All of it.
    pub body: Vec<u8>,
}

impl Request {
    /// A request of a path, which is sent as it stands.
    #[must_use]
    pub fn new(method: &str, target: impl Into<String>) -> Self {
        Self {
            method: method.to_owned(),
            target: target.into(),
            headers: Vec::new(),
            body: Vec::new(),
            chunked: false,
        }
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With a user and password.
    #[must_use]
    pub fn basic(self, user: &str, password: &str) -> Self {
        let encoded = base64(format!("{user}:{password}").as_bytes());
        self.header("Authorization", format!("Basic {encoded}"))
    }

    /// With a body of known length.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the body in chunks, without its length.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// The head as it goes over the wire, with the length of the whole body.
    #[must_use]
    pub fn head(&self, host: SocketAddr) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if self.chunked {
            head += "Transfer-Encoding: chunked\r\n";
        } else if !self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH")
        {
            let given = self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length"));
            if !given {
                head += &format!("Content-Length: {}\r\n", self.body.len());
            }
        }
        head + "Connection: close\r\n\r\n"
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    /// When the connection breaks, or takes too long.
    pub fn send(&self, to: SocketAddr) -> Result<Answer> {
        self.try_send(to).with_context(|| format!("{} {} at {to}", self.method, self.target))
    }

    fn try_send(&self, to: SocketAddr) -> Result<Answer> {
        let mut stream = connect(to)?;
        stream.write_all(self.head(to).as_bytes())?;
        // A server may refuse before it has read everything: the answer counts, not the write.
        let sent =
            if self.chunked { self.send_chunks(&mut stream) } else { self.send_all(&mut stream) };
        match read_answer(&mut BufReader::new(stream), self.method == "HEAD") {
            Ok(answer) => Ok(answer),
            Err(error) => {
                sent.context("sending the body")?;
                Err(error)
            }
        }
    }

    fn send_all(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(&self.body)
    }

    fn send_chunks(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        const CHUNK_BYTES: usize = 60_000;
        for chunk in self.body.chunks(CHUNK_BYTES) {
            write!(stream, "{:x}\r\n", chunk.len())?;
            stream.write_all(chunk)?;
            stream.write_all(b"\r\n")?;
        }
        stream.write_all(b"0\r\n\r\n")
    }
}

impl Answer {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    /// A header that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn needs(&self, name: &str) -> Result<&str> {
        self.header(name).with_context(|| format!("no header {name} in {self:?}"))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.text()))
    }

    /// The code of the first error in the body; empty when there is none.
    #[must_use]
    pub fn code(&self) -> String {
        let body = self.json().unwrap_or_default();
        body["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Wants this status.
    ///
    /// # Errors
    /// For any other, with what was said.
    pub fn is(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "{} instead of {status}: {}", self.status, self.text());
        Ok(self)
    }
}

/// A connection with limits.
///
/// # Errors
/// When nothing listens.
pub fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, TIME_MAX)?;
    stream.set_read_timeout(Some(TIME_MAX))?;
    stream.set_write_timeout(Some(TIME_MAX))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one answer.
///
/// # Errors
/// When it is broken off or not HTTP.
pub fn read_answer(reader: &mut impl BufRead, head_only: bool) -> Result<Answer> {
    let (mut status, mut headers) = read_head(reader)?;
    while status == 100 {
        (status, headers) = read_head(reader)?;
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    if head_only || matches!(status, 204 | 304) {
        return Ok(answer);
    }
    if answer.header("Transfer-Encoding").is_some() {
        loop {
            let size = usize::from_str_radix(line(reader)?.trim(), 16).context("chunk size")?;
            let from = answer.body.len();
            answer.body.resize(from + size, 0);
            reader.read_exact(&mut answer.body[from..])?;
            line(reader)?;
            if size == 0 {
                return Ok(answer);
            }
        }
    }
    match answer.header("Content-Length") {
        Some(length) => {
            answer.body.resize(length.parse().context("Content-Length")?, 0);
            reader.read_exact(&mut answer.body).context("the body broke off")?;
        }
        None => {
            reader.read_to_end(&mut answer.body)?;
        }
    }
    Ok(answer)
}

fn read_head(reader: &mut impl BufRead) -> Result<(u16, Vec<(String, String)>)> {
    let first = line(reader)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("no HTTP: {first:?}"))?;
    let mut headers = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            return Ok((status, headers));
        }
        let (name, value) = line.split_once(':').context("a header without a colon")?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        bail!("the connection ended");
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Base 64, for `Authorization` and the files of clients.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - group.len()));
        for at in 0..4 {
            let six = (word >> (18 - 6 * at)) & 63;
            text.push(if at <= group.len() { char::from(ALPHABET[six as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        assert_eq!(base64(b"ada:secret"), "YWRhOnNlY3JldA==");
        assert_eq!(base64(b"abc"), "YWJj");
        assert_eq!(base64(b"ab"), "YWI=");
    }

    #[test]
    fn chunked_answers_are_put_together() {
        let text =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let answer = read_answer(&mut text.as_bytes(), false).unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"abcde"[..]));
    }
}
