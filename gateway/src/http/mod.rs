//! HTTP: the only part of the gateway that knows it.
//!
//! A connection is accepted in [`server`], each of its requests goes through [`dispatch`] to
//! [`v2`] or one of the smaller interfaces, and leaves with a [`record`] of itself. Bodies come in
//! by [`intake`] and go out by [`blobs`], both within one [`budget`]. Nothing a client does takes
//! unbounded time or memory; the limits are in [`crate::config::Limits`].

mod admission;
mod answer;
mod api;
mod app;
mod blobs;
mod budget;
mod call;
mod dispatch;
mod failure;
mod health;
mod intake;
mod lists;
mod manifests;
mod metrics;
mod record;
mod request;
mod serve;
mod server;
mod source;
mod stall;
mod token;
mod uploads;
mod v2;

pub use serve::{Gateway, StartError};
