//! `s3://`: any S3-compatible service, through `object_store`'s own client.
//!
//! Credentials come from the usual AWS_* variables. `Update` needs a service that honours
//! If-Match on PUT.

use crate::error::StoreError;
use crate::store::StoreOptions;
use crate::url::S3Url;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn open(
    url: &S3Url,
    options: &StoreOptions,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let what = format!("bucket {}", url.bucket);
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&url.bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(ClientOptions::new().with_timeout(options.request_timeout))
        // Retries are the retry wrapper's business: two of them would multiply.
        .with_retry(RetryConfig {
            max_retries: 0,
            retry_timeout: Duration::ZERO,
            ..RetryConfig::default()
        });
    if let Some(region) = &url.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &url.endpoint {
        let plain = endpoint.starts_with("http://");
        builder = builder.with_endpoint(endpoint).with_allow_http(plain);
    }
    let store = builder.build().map_err(|source| StoreError::Failed {
        operation: "setting up",
        what: what.clone(),
        source: source.into(),
    })?;
    if url.prefix.is_empty() {
        return Ok(Arc::new(store));
    }
    let prefix = Path::parse(&url.prefix).map_err(|error| StoreError::Invalid {
        what,
        remedy: format!("name another prefix: {error}"),
    })?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}
