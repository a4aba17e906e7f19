//! Local callers: whom the kernel says to be at the other end of a loopback connection.
