//! What the tests with real parts share: the daemon as a process, users, programs, comparisons.
//!
//! The tests see Yadokari from outside only: its command line, its mounts, its exit codes. They
//! run as root on a machine that they may change (users are made and removed), and everything
//! that a test started ends with it. A missing prerequisite is an error, never a skip.

pub mod cache;
pub mod ceph;
pub mod crash;
pub mod differential;
pub mod gateway;
pub mod http;
pub mod image;
pub mod instance;
pub mod podman;
pub mod process;
pub mod slapd;
pub mod soak;
pub mod stores;
pub mod tree;
pub mod trouble;
pub mod usage;
pub mod user;
pub mod wait;

/// `make test-long` runs the full length of what `make test` runs in a few minutes.
#[must_use]
pub fn is_long() -> bool {
    std::env::var_os("YADOKARI_TEST_LONG").is_some()
}
