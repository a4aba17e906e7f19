//! Figures for Prometheus. Every name is here; what is counted per request is an array index and
//! two atomic additions, as manifests are asked for tens of thousands of times per second.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// What a request does, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Base,
    Catalog,
    Tags,
    ManifestGet,
    ManifestPut,
    ManifestDelete,
    BlobGet,
    BlobDelete,
    UploadStart,
    UploadPart,
    UploadEnd,
    UploadStatus,
    UploadCancel,
    Referrers,
    Token,
    Api,
    Other,
}

impl Operation {
    const ALL: [Self; 17] = [
        Self::Base,
        Self::Catalog,
        Self::Tags,
        Self::ManifestGet,
        Self::ManifestPut,
        Self::ManifestDelete,
        Self::BlobGet,
        Self::BlobDelete,
        Self::UploadStart,
        Self::UploadPart,
        Self::UploadEnd,
        Self::UploadStatus,
        Self::UploadCancel,
        Self::Referrers,
        Self::Token,
        Self::Api,
        Self::Other,
    ];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Tags => "tags",
            Self::ManifestGet => "manifest_get",
            Self::ManifestPut => "manifest_put",
            Self::ManifestDelete => "manifest_delete",
            Self::BlobGet => "blob_get",
            Self::BlobDelete => "blob_delete",
            Self::UploadStart => "upload_start",
            Self::UploadPart => "upload_part",
            Self::UploadEnd => "upload_end",
            Self::UploadStatus => "upload_status",
            Self::UploadCancel => "upload_cancel",
            Self::Referrers => "referrers",
            Self::Token => "token",
            Self::Api => "api",
            Self::Other => "other",
        }
    }
}

/// Statuses are counted by their hundreds.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// From a cached manifest to a blob of gigabytes.
const SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByOperation {
    operation: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByStatus {
    operation: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByDirection {
    direction: &'static str,
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    requests: [[Counter; CLASSES.len()]; Operation::ALL.len()],
    seconds: [Histogram; Operation::ALL.len()],
    /// Requests that run.
    pub in_flight: Gauge,
    connections: Gauge,
    /// Bytes of bodies that came in.
    pub received: Counter,
    /// Bytes of bodies that went out.
    pub sent: Counter,
    /// Requests refused because a caller has too many.
    pub throttled: Counter,
    /// Bytes of the budget in use.
    pub budget_used: Gauge<u64, AtomicU64>,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("yadokari_gateway");
        let requests = Family::<ByStatus, Counter>::default();
        registry.register("requests", "Requests answered", requests.clone());
        let seconds =
            Family::<ByOperation, Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        registry.register("request_seconds", "Time to the last byte of an answer", seconds.clone());
        let bytes = Family::<ByDirection, Counter>::default();
        registry.register("body_bytes", "Bytes of bodies", bytes.clone());
        let in_flight = Gauge::default();
        registry.register("requests_in_flight", "Requests that run", in_flight.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        let throttled = Counter::default();
        registry.register(
            "requests_throttled",
            "Requests refused as their caller has too many",
            throttled.clone(),
        );
        let budget_used = Gauge::default();
        registry.register(
            "transfer_bytes",
            "Bytes that transfers hold in memory, of the common budget",
            budget_used.clone(),
        );
        // Each in a function of its own: what `get_or_create` gives holds a lock until it goes.
        let by_status = |operation: Operation, status| {
            let labels = ByStatus { operation: operation.as_str(), status };
            requests.get_or_create(&labels).clone()
        };
        let by_direction = |direction| bytes.get_or_create(&ByDirection { direction }).clone();
        let by_operation = |operation: Operation| {
            let labels = ByOperation { operation: operation.as_str() };
            seconds.get_or_create(&labels).clone()
        };
        Self {
            requests: Operation::ALL.map(|op| CLASSES.map(|status| by_status(op, status))),
            seconds: Operation::ALL.map(by_operation),
            in_flight,
            connections,
            received: by_direction("received"),
            sent: by_direction("sent"),
            throttled,
            budget_used,
            registry,
        }
    }

    /// One request has been answered.
    pub fn answered(&self, operation: Operation, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        self.requests[operation as usize][class].inc();
        self.seconds[operation as usize].observe(took.as_secs_f64());
    }

    /// One more connection, until the guard goes.
    #[must_use]
    pub fn connection(&self) -> Held {
        Held::new(&self.connections)
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// Never in practice: writing to a string cannot fail.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Sets what is measured and not counted.
    pub fn measure(&self, budget_used: u64) {
        self.budget_used.set(budget_used);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// One of a gauge, until dropped.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    /// One more.
    #[must_use]
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_stands_in_the_text() {
        let metrics = Metrics::new();
        metrics.answered(Operation::ManifestGet, 200, Duration::from_millis(1));
        metrics.answered(Operation::ManifestGet, 404, Duration::from_millis(1));
        let held = metrics.connection();
        let text = metrics.text().unwrap();
        let line = r#"yadokari_gateway_requests_total{operation="manifest_get",status="2xx"} 1"#;
        assert!(text.contains(line), "{text}");
        assert!(text.contains("yadokari_gateway_connections 1"), "{text}");
        drop(held);
        assert!(metrics.text().unwrap().contains("yadokari_gateway_connections 0"));
    }

    #[test]
    fn every_operation_is_its_own_index() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index, "{}", operation.as_str());
        }
    }
}
