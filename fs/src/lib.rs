//! Homes and their mounts.
