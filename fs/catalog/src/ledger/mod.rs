//! An owner's ledger: what is linked in the owner's repositories, each blob charged once, what
//! uploads reserved, what is under way, and the change counter.
//!
//! A change of links is *intent → repository → settle*. From its intent on a blob is charged and
//! counts as referred to, whatever becomes of the rest; settling says what the repository's
//! state came to. An intent that nobody settles is finished by any instance: it forbids the
//! repository to carry it out later (a void), looks, and settles. Since observations carry the
//! number of the repository's state, an older one never overrides a newer one. Pure.

mod op;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use op::{IntentKind, LedgerOp, Seen};
pub(crate) use state::{Intent, Ledger};
