//! The image gateway: a complete OCI registry, streaming and stateless over the store.

pub mod auth;
