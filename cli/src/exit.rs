//! How a command ends: exit codes, and errors that name the thing and the remedy.

use std::fmt;

use yadokari_fs::home::ErrorKind;

/// What the process says to its parent; scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed, for a reason outside the command line.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The thing that was named does not exist.
    NotFound = 3,
    /// It exists, but the answer is no: held by somebody, not allowed, in the way.
    Refused = 4,
}

/// An error with its exit code and, where there is one, the remedy.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    remedy: Option<String>,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), remedy: None }
    }

    /// Ends with 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Ends with 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Ends with 3.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// Ends with 4.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, message)
    }

    /// What to do about it, in the imperative.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code of an error, wherever in its chain the reason lies.
pub fn code(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.exit;
        }
        if let Some(home) = cause.downcast_ref::<yadokari_fs::home::Error>() {
            return of_home(home.kind());
        }
    }
    Exit::Failed
}

/// Prints an error and its remedy to standard error.
pub fn report(error: &anyhow::Error) {
    eprintln!("yadokari: {error:#}");
    let remedy = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()?.remedy.as_ref());
    if let Some(remedy) = remedy {
        for line in remedy.lines() {
            eprintln!("  {line}");
        }
    }
}

fn of_home(kind: &ErrorKind) -> Exit {
    match kind {
        ErrorKind::NotFound | ErrorKind::Stale | ErrorKind::NoAttribute => Exit::NotFound,
        ErrorKind::Exists
        | ErrorKind::NotEmpty
        | ErrorKind::NotPermitted
        | ErrorKind::ReadOnly
        | ErrorKind::OverQuota
        | ErrorKind::WouldBlock
        | ErrorKind::Newer(_)
        | ErrorKind::OwnedElsewhere(_)
        | ErrorKind::TooManySnapshots(_)
        | ErrorKind::Fenced => Exit::Refused,
        ErrorKind::NotDir
        | ErrorKind::IsDir
        | ErrorKind::NameTooLong
        | ErrorKind::Invalid
        | ErrorKind::NotSupported
        | ErrorKind::TooManyLinks
        | ErrorKind::FileTooLarge
        | ErrorKind::NoData
        | ErrorKind::AttributeTooBig
        | ErrorKind::NoSpace
        | ErrorKind::Deadlock
        | ErrorKind::Closed
        | ErrorKind::Unavailable(_)
        | ErrorKind::Corrupt(_) => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn the_code_is_found_below_added_context() {
        let error = Err::<(), _>(Failure::not_found("home `ada` does not exist"))
            .context("while showing it")
            .expect_err("is an error");
        assert_eq!(code(&error), Exit::NotFound);
        assert_eq!(code(&anyhow::anyhow!("anything else")), Exit::Failed);
        let home = yadokari_fs::home::Error::from(ErrorKind::Fenced);
        assert_eq!(code(&home.into()), Exit::Refused);
    }
}
