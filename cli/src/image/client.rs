//! One connection to a registry's management API, and its errors as exit codes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use yadokari_gateway::api::{Errors, Listing, PREFIX};

use super::credentials::Authorization;
use super::place::Place;
use crate::exit::{Exit, Failure};
use crate::output;

/// A registry that takes longer to answer is taken for dead.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// No answer of this API is longer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A registry to be asked.
pub struct Client {
    place: Place,
    authorization: Option<Authorization>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Connects at the first question.
    pub fn new(place: Place, authorization: Option<Authorization>) -> anyhow::Result<Self> {
        Ok(Self { place, authorization, sender: None })
    }

    /// Asks.
    pub async fn get<T: DeserializeOwned>(
        &mut self,
        path: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<T> {
        let query: String =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        self.ask(Method::GET, &path, Bytes::new()).await
    }

    /// Asks for all pages of a list.
    pub async fn all<T: DeserializeOwned>(
        &mut self,
        path: &str,
        query: &[(&str, &str)],
        what: &str,
    ) -> anyhow::Result<Vec<T>> {
        let mut progress = output::Progress::new(format!("listing {what}"));
        let (mut items, mut last) = (Vec::new(), None::<String>);
        loop {
            let mut query = query.to_vec();
            if let Some(last) = &last {
                query.push(("last", last));
            }
            let page: Listing<T> = self.get(path, &query).await?;
            items.extend(page.items);
            progress.at(&items.len().to_string());
            match page.next {
                Some(next) if last.as_ref() != Some(&next) => last = Some(next),
                _ => return Ok(items),
            }
        }
    }

    /// Changes something.
    pub async fn send<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let body = serde_json::to_vec(body)?;
        self.ask(method, path, body.into()).await
    }

    async fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<T> {
        let host = self.place.host.clone();
        let asking = tokio::time::timeout(ANSWER_TIME_MAX, self.exchange(method, path, body));
        let asked = output::with_progress(&format!("asking {host}"), asking).await;
        let (status, bytes) = asked
            .map_err(|_| Failure::failed(format!("{host} does not answer")))?
            .with_context(|| format!("registry {host}"))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|_| {
                Failure::failed(format!("{host} does not speak Yadokari's API"))
                    .remedy("these commands work with a Yadokari registry of the same version")
                    .into()
            });
        }
        Err(self.explain(status, &bytes).into())
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{PREFIX}{path}"))
            .header(header::HOST, &self.place.host)
            .header(header::USER_AGENT, concat!("yadokari/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(Authorization(value)) = &self.authorization {
            let mut value = header::HeaderValue::from_str(value)?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Full::new(body))?;
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            self.sender = Some(connect(&self.place).await?);
        }
        let sender = self.sender.as_mut().context("is connected")?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("its answer broke off: {error}"))?;
        Ok((status, body.to_bytes()))
    }

    fn explain(&self, status: StatusCode, body: &[u8]) -> Failure {
        let host = &self.place.host;
        let said = serde_json::from_slice::<Errors>(body).ok();
        let said = said.and_then(|errors| errors.errors.into_iter().next());
        let Some(said) = said else {
            return Failure::failed(format!("{host} answers {status}"))
                .remedy("these commands work with a Yadokari registry");
        };
        let message = said.message;
        match status {
            StatusCode::UNAUTHORIZED => Failure::refused(format!("{host}: {message}"))
                .remedy(format!("log in: podman login {host}")),
            StatusCode::NOT_FOUND => {
                Failure::not_found(message).remedy("`yadokari image ls` shows what you may see")
            }
            StatusCode::BAD_REQUEST => Failure::usage(message),
            StatusCode::FORBIDDEN | StatusCode::CONFLICT | StatusCode::METHOD_NOT_ALLOWED => {
                Failure::refused(message)
            }
            _ => Failure::failed(format!("{host}: {message}")),
        }
    }
}

/// Whether an error says that nothing is there.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    crate::exit::code(error) == Exit::NotFound
}

fn silent(message: impl Into<String>) -> Failure {
    Failure::failed(message).remedy(
        "start one on this machine:  yadokari up\n\
         or name another:            yadokari image --registry HOST[:PORT] …",
    )
}

async fn connect(place: &Place) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    if let Some(socket) = &place.socket {
        return start(UnixStream::connect(socket).await?).await;
    }
    let (name, port) = place.address();
    let connecting = TcpStream::connect((name.as_str(), port));
    let stream = match tokio::time::timeout(CONNECT_TIME_MAX, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Err(silent(format!("nothing answers there: {error}")).into());
        }
        Err(_) => return Err(silent("nothing answers there in time").into()),
    };
    if !place.tls {
        return start(stream).await;
    }
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(place)?));
    let server = rustls::pki_types::ServerName::try_from(name)?;
    let stream = connector.connect(server, stream).await.map_err(|error| {
        Failure::failed(format!("no TLS there: {error}")).remedy(
            "its certificate authority belongs into /etc/containers/certs.d/HOST:PORT/ca.crt;\n\
             a registry without TLS is named http://HOST:PORT",
        )
    })?;
    start(stream).await
}

async fn start<S>(stream: S) -> anyhow::Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Trusts what the system trusts, and what Podman trusts for this registry.
fn tls(place: &Place) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let home = std::env::home_dir().unwrap_or_default();
    for folder in [
        home.join(".config/containers/certs.d"),
        "/etc/containers/certs.d".into(),
        "/etc/docker/certs.d".into(),
    ] {
        let Ok(files) = std::fs::read_dir(folder.join(&place.host)) else { continue };
        let certificates = files.flatten().map(|entry| entry.path());
        for file in certificates.filter(|f| f.extension().is_some_and(|e| e == "crt")) {
            let found =
                CertificateDer::pem_file_iter(&file).with_context(|| file.display().to_string())?;
            roots.add_parsable_certificates(found.filter_map(Result::ok));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
