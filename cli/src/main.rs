//! The command line: reads what was typed, runs one command, prints, and sets the exit code.

mod args;
mod commands;
mod config;
mod doctor;
mod exit;
mod gateway;
mod image;
mod instance;
mod output;
mod serve;
mod setup;
mod size;
mod test_hook;
mod users;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::Cli;
use crate::config::Settings;
use crate::exit::Failure;

/// The daemon promises a bound on its memory, and glibc's allocator keeps what many threads
/// freed: after unpacking, removing and reading trees it held a quarter more.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads at its first allocation: few arenas, as there are few busy threads, and
/// what is freed goes back to the system at once, nearly.
// SAFETY: nothing else defines this symbol, and it is what jemalloc expects: a pointer to a
// string that ends with NUL and lives for ever.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_CONF: &[u8; 69] =
    b"narenas:4,background_thread:true,dirty_decay_ms:300,muzzy_decay_ms:0\0";

/// Arenas of the C library's allocator, which librados uses beside ours: each keeps what was freed
/// in it, and there would be eight for each core.
const C_ARENAS_MAX: libc::c_int = 2;
/// Bytes from which the C library gives an allocation back as soon as it is freed. Said, it stays:
/// otherwise it grows with the first large buffer.
const C_KEPT_MAX: libc::c_int = 256 << 10;

/// Bounds what the C library's allocator keeps. Before there are threads.
fn restrain_c_allocator() {
    // SAFETY: both only set numbers that later allocations read; no other thread runs yet.
    let taken = unsafe {
        libc::mallopt(libc::M_ARENA_MAX, C_ARENAS_MAX)
            & libc::mallopt(libc::M_MMAP_THRESHOLD, C_KEPT_MAX)
    };
    debug_assert_eq!(taken, 1, "mallopt knows both");
}

fn main() {
    restrain_c_allocator();
    let cli = Cli::parse();
    let done = Settings::load(&cli.global).and_then(|settings| {
        log_to_stderr(&settings.log)?;
        commands::run(cli.command, &cli.global, settings)
    });
    let exit = match done {
        Ok(exit) => exit,
        Err(error) => {
            exit::report(&error);
            exit::code(&error)
        }
    };
    yadokari_store::leave(exit as u8)
}

/// Standard output is for facts and `ready`; the log is not.
fn log_to_stderr(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::usage(format!("log filter `{filter}`: {error}"))
            .remedy("write error, warn, info, debug, trace, or e.g. info,yadokari_fs=debug")
    })?;
    // A request that its caller gave up has nobody to answer: no error of anybody's.
    let filter = filter.add_directive("fuser::reply=off".parse()?);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
    Ok(())
}
