//! Preparing other programs for homes.

mod file;
pub mod podman;
pub mod registries;
pub mod storage;
pub mod volatile;
