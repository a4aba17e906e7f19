//! Homes in an object store, and the FUSE mount that serves them.

pub mod home;
