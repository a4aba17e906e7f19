//! For tests only: lets a part of the store hang while a file exists.
//!
//! With `YADOKARI_TEST_HANG=FILE` in the environment, every operation on objects whose names
//! begin with what FILE holds (as `homes/ada/`) waits from when FILE appears until it goes away.
//! Without the variable the store is passed on untouched.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use yadokari_store::Store;
use yadokari_store::fault::{Action, Fault, FaultControl, FaultPlan, FaultStore};

/// The variable.
const VARIABLE: &str = "YADOKARI_TEST_HANG";
const POLL: Duration = Duration::from_millis(50);

/// Wraps the store if the variable is set. Needs a runtime.
pub fn wrap(store: Store) -> Store {
    let Some(file) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return store };
    tracing::warn!(file = %file.display(), "{VARIABLE} is set: the store hangs when told to");
    let control = FaultControl::new(FaultPlan::none());
    tokio::spawn(follow(file, control.clone()));
    store.wrap(|_, inner| Arc::new(FaultStore::with_control(inner, control.clone())))
}

async fn follow(file: PathBuf, control: FaultControl) {
    let mut armed = None;
    loop {
        let wanted = std::fs::read_to_string(&file).ok().filter(|prefix| !prefix.is_empty());
        if wanted != armed {
            match &wanted {
                Some(prefix) => {
                    control.arm(Fault::new(Action::Hang).under(prefix.trim()).always().into());
                }
                None => {
                    control.disarm();
                    control.release();
                }
            }
            armed = wanted;
        }
        tokio::time::sleep(POLL).await;
    }
}
