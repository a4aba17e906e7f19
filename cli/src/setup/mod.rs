//! Preparing other programs for homes.

pub mod podman;
pub mod registries;
pub mod storage;
pub mod volatile;
