//! What the tests with real parts share.

pub mod ceph;
