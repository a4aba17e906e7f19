//! The registry gateway: beside the homes in `up`, or alone.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use yadokari_catalog::{Catalog, CollectOptions, Options};
use yadokari_gateway::auth::{AuthConfig, Authenticator};
use yadokari_gateway::config::{Config, Limits};
use yadokari_gateway::http::{Gateway, StartError};
use yadokari_gateway::tls::TlsFiles;
use yadokari_store::{Store, StoreOptions};

use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::setup::registries::Announced;
use crate::{output, serve};

/// Descriptors that every gateway wants: connections and files of the embedded store.
const DESCRIPTORS_WANTED: u64 = 65_536;

/// Under the data directory: where root and who runs the gateway administer it.
pub const OPERATOR_SOCKET: &str = "run/gateway.sock";

/// A gateway that runs.
pub struct Running {
    gateway: Gateway,
    collecting: Option<JoinHandle<()>>,
    tls: bool,
    /// Only of the gateway that `up` runs.
    _announced: Option<Announced>,
}

/// Serves the registry alone until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever stops it before that, with its remedy.
pub fn run(settings: &Settings) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let options = StoreOptions {
            request_timeout: settings.timing_store_timeout,
            ..StoreOptions::default()
        };
        let store = crate::test_hook::wrap(serve::open_store(settings, &options).await?);
        let running = Running::start(settings, &store, false).await?;
        let Some(running) = running else {
            return Err(Failure::usage("the gateway has no address to listen on")
                .remedy("--listen ADDR:PORT, or listen = \"ADDR:PORT\" in section [gateway]")
                .into());
        };
        output::announce(&format!("ready{} pid={}\n", running.shown(), std::process::id()))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("letting transfers end, then leaving");
        running.shutdown().await;
        Ok(Exit::Done)
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
}

impl Running {
    /// Starts a gateway on a store; `None` when it is to listen nowhere. `local_callers` lets the
    /// kernel say who calls on loopback.
    ///
    /// # Errors
    /// What is wrong with the configuration, or with the address.
    pub async fn start(
        settings: &Settings,
        store: &Store,
        local_callers: bool,
    ) -> anyhow::Result<Option<Self>> {
        let (listen, chosen) = settings.gateway.addresses();
        if listen.is_empty() {
            return Ok(None);
        }
        raise_descriptors();
        let options = catalog_options(settings);
        let seams = options.seams.clone();
        let catalog = Catalog::new(store, options);
        // As for homes: librados does not bear being torn down while its threads run.
        std::mem::forget(catalog.clone());
        let auth = auth_config(settings)?;
        let auth = Authenticator::start(auth, store, &catalog, seams).await;
        let auth = auth.context("the gateway's authentication")?;
        let tls = tls_files(settings)?;
        let config = |listen| config(settings, listen, local_callers, tls.clone());
        let started = Gateway::start(config(listen.clone()), catalog.clone(), Arc::clone(&auth));
        let gateway = match started.await {
            Err(error) if !chosen && is_taken(&error) => {
                tracing::warn!(%error, "the usual address is taken, so another port is used");
                let any = SocketAddr::new(listen[0].ip(), 0);
                Gateway::start(config(vec![any]), catalog.clone(), auth).await
            }
            other => other,
        };
        let gateway = gateway.map_err(|error| {
            Failure::failed(error.to_string()).remedy("--listen ADDR:PORT names another address")
        })?;
        let collecting = settings.gateway.collect_interval.map(|interval| {
            tokio::spawn(async move {
                loop {
                    // Jittered by when each instance started; one alone does the round.
                    tokio::time::sleep(interval).await;
                    let options = CollectOptions::default();
                    match catalog.collect_if_due(&options, interval).await {
                        Ok(report) => tracing::debug!(?report, "collected"),
                        Err(error) => tracing::warn!(%error, "collection stopped early"),
                    }
                }
            })
        });
        let address = gateway.addresses().first().copied();
        let address = address.filter(|_| local_callers && tls.is_none());
        let announced = address.map(|address| Announced::new(&settings.data, address));
        Ok(Some(Self { gateway, collecting, tls: tls.is_some(), _announced: announced }))
    }

    /// Its part of the `ready` line.
    pub fn shown(&self) -> String {
        let first = self.gateway.addresses().first();
        let scheme = if self.tls { "https" } else { "http" };
        first.map(|address| format!(" gateway={scheme}://{address}")).unwrap_or_default()
    }

    /// Lets transfers end, then ends.
    pub async fn shutdown(self) {
        if let Some(collecting) = self.collecting {
            collecting.abort();
        }
        self.gateway.shutdown().await;
    }
}

/// Certificate and key: both or none.
fn tls_files(settings: &Settings) -> anyhow::Result<Option<TlsFiles>> {
    match (&settings.gateway.tls_certificate, &settings.gateway.tls_key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            Ok(Some(TlsFiles { certificate: certificate.clone(), key: key.clone() }))
        }
        _ => Err(Failure::usage("gateway.tls_certificate and gateway.tls_key belong together")
            .remedy("set both, or none for plain HTTP")
            .into()),
    }
}

fn config(
    settings: &Settings,
    listen: Vec<SocketAddr>,
    local_callers: bool,
    tls: Option<TlsFiles>,
) -> Config {
    let from = &settings.gateway;
    Config {
        listen,
        local_callers,
        operator_socket: Some(settings.data.join(OPERATOR_SOCKET)),
        tls,
        metrics_listen: from.metrics_listen,
        external_url: from.external_url.clone(),
        trusted_proxies: Arc::clone(&from.trusted_proxies),
        sparse: from.sparse,
        limits: Limits {
            transfer_bytes: from.transfer_memory,
            blob_bytes: from.blob_max,
            connections: from.connections_max,
            requests_per_caller: from.requests_max,
            stall_time: from.stall_time,
            shutdown_time: from.shutdown_time,
            ..Limits::default()
        },
    }
}

fn catalog_options(settings: &Settings) -> Options {
    /// Heads are many and small, manifests few and larger.
    const MANIFEST_PART: u64 = 5;
    let from = &settings.gateway;
    let manifests = from.cache_memory * 2 / MANIFEST_PART;
    Options {
        default_quota: from.quota,
        manifest_cache_bytes: manifests,
        head_cache_bytes: from.cache_memory - manifests,
        upload_expiry: from.upload_expiry,
        untagged_expiry: from.untagged_expiry,
        grace: from.collect_grace,
        ..Options::default()
    }
}

fn auth_config(settings: &Settings) -> anyhow::Result<AuthConfig> {
    let mut config = match &settings.source {
        Some((path, text)) => {
            AuthConfig::from_toml(path, text).map_err(|error| Failure::usage(error.to_string()))?
        }
        None => AuthConfig::default(),
    };
    config.external_url = settings.gateway.external_url.clone();
    Ok(config)
}

fn is_taken(error: &StartError) -> bool {
    let taken = std::io::ErrorKind::AddrInUse;
    matches!(error, StartError::Listen { source, .. } if source.kind() == taken)
}

/// The usual soft limit of 1024 descriptors is for programs that use select(2).
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS_WANTED, |most| most.min(DESCRIPTORS_WANTED));
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
}
