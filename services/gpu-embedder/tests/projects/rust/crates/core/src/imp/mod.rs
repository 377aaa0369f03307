#[cfg(unix)]
#[path = "unix.rs"]
pub mod platform;

#[cfg(not(unix))]
#[path = "other.rs"]
pub mod platform;
