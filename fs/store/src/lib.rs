//! One object store behind one trait.
