//! Content-addressed chunks.
