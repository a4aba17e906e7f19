//! What the C library keeps of memory that was given back.
//!
//! Transfers take and return large buffers on many threads. Left to itself glibc raises the size
//! from which buffers are mapped on their own with the first large one that is returned, and then
//! keeps what comes back in an arena per thread: with 32 transfers twice what the budget allows.

/// Buffers of this size and more go back to the kernel when they are returned.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: libc::c_int = 128 << 10;
/// More arenas serve more threads at once; small allocations are too few to need them.
#[cfg(target_env = "gnu")]
const ARENAS_MAX: libc::c_int = 2;

/// Lets memory that transfers return go back to the kernel at once. For a process that is a
/// gateway alone; to be called before it has many threads.
pub fn return_at_once() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [
        (libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN),
        (libc::M_TRIM_THRESHOLD, MAPPED_BYTES_MIN),
        (libc::M_ARENA_MAX, ARENAS_MAX),
    ] {
        // SAFETY: takes two numbers, may be called at any time, and changes no allocation that
        // exists already.
        let _refused_is_as_before = unsafe { libc::mallopt(what, value) };
    }
}
