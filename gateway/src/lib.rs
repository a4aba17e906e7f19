//! The image gateway: a complete OCI registry, streaming and stateless over the store.
//!
//! [`oci`] is the specification as pure functions, [`registry`] does its operations on the
//! catalogue, [`http`] is the only part that knows HTTP. State lies in the store alone: any number
//! of gateways over one store behave as one.

pub mod api;
pub mod auth;
pub mod config;
pub mod http;
pub mod oci;
pub mod registry;
pub mod tls;
