//! Content-addressed chunks: what homes and image layers share of the files they hold.

pub mod chunk;
