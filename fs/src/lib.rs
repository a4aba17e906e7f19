//! Homes in an object store, and the FUSE mount that serves them.

pub mod archive;
pub mod fuse;
pub mod home;
pub mod node;
pub mod view;
