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
mod program;
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
/// freed: after unpacking, removing and reading trees it held a quarter more. It serves libraries
/// too, librados above all: its symbols have no prefix, so the program's `malloc` is everybody's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads at its first allocation: few arenas, as there are few busy threads, and
/// what is freed goes back to the system at once, nearly. Large buffers too have that little while
/// (by default they have none): those of segments follow one another, and to take a fresh page
/// costs more than to fill it.
// SAFETY: nothing else defines this symbol, and it is what jemalloc expects: a pointer to a
// string that ends with NUL and lives for ever.
#[unsafe(export_name = "malloc_conf")]
pub static ALLOCATOR_CONF: &[u8; 90] =
    b"narenas:4,background_thread:true,dirty_decay_ms:300,muzzy_decay_ms:0,oversize_threshold:0\0";

fn main() {
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
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::{CStr, c_void};

    /// Where the program or library lies in memory that an address belongs to.
    fn base_of(address: *const c_void) -> *mut c_void {
        // SAFETY: four plain pointers, which may be null.
        let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: `info` outlives the call; the address is only compared.
        assert_ne!(unsafe { libc::dladdr(address, &raw mut info) }, 0);
        info.dli_fbase
    }

    #[test]
    fn libraries_take_their_memory_from_our_allocator() {
        let names: [&CStr; 4] = [c"malloc", c"calloc", c"posix_memalign", c"free"];
        for name in names {
            // SAFETY: a C string; what is found is not called.
            let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            assert_eq!(base_of(found), base_of(main as *const c_void), "{name:?}");
        }
    }
}
