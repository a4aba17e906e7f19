//! Maps that are walked in the same order in every run, so that a simulation replays from its
//! seed. Their keys are numbers that the home gives itself: nobody can choose ones that collide.

use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

/// Hashes alike in every run.
pub type SameHash = BuildHasherDefault<DefaultHasher>;
/// A map that is walked alike in every run.
pub type HashMap<K, V> = std::collections::HashMap<K, V, SameHash>;
/// A set likewise.
pub type HashSet<K> = std::collections::HashSet<K, SameHash>;
