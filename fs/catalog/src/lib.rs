//! What the registry knows, kept on the store: owners, repositories, tags, manifests, blob
//! records, rights, ledgers, uploads and their collection.
//!
//! Everything is an object that is written once, or a small head that is swapped by
//! compare-and-swap; any number of processes work on one catalogue at the same time.
