//! Printing: tables and lines for people, JSON for programs, progress for the impatient.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::args::Output;

/// Work that takes longer than this says how far it is.
const PROGRESS_AFTER: Duration = Duration::from_secs(2);
/// A terminal is redrawn this often, a log gets a line this much more rarely.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
const PROGRESS_LOG_EVERY: Duration = Duration::from_secs(10);

/// Prints `facts` as JSON when that was asked for, and as `human` says otherwise.
///
/// # Errors
/// When standard output takes no more, other than a reader that went away.
pub fn print<T: Serialize>(
    output: Output,
    facts: &T,
    human: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let mut text = if output.json { serde_json::to_string_pretty(facts)? } else { human(facts) };
    if !text.ends_with('\n') && !text.is_empty() {
        text.push('\n');
    }
    write_out(&text)
}

/// Writes to standard output; with `yadokari … | head` the command ends when the reader does.
///
/// # Errors
/// When standard output takes no more, other than a reader that went away.
pub fn write_out(text: &str) -> anyhow::Result<()> {
    if is_read(text)? { Ok(()) } else { yadokari_store::leave(0) }
}

/// Tells whoever waits for it that everything serves; a daemon goes on whether or not they do.
///
/// # Errors
/// When standard output takes no more, other than a reader that went away.
pub fn announce(text: &str) -> anyhow::Result<()> {
    is_read(text).map(drop)
}

fn is_read(text: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A time in seconds since 1970, in UTC.
pub fn time(seconds: i64) -> String {
    let time = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Columns that are as wide as their widest cell; those named in `right` are aligned right.
pub fn table(head: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if i > 0 {
                line.push_str("  ");
            }
            let gap = " ".repeat(width - cell.chars().count());
            let (before, after) =
                if right.contains(&i) { (gap, String::new()) } else { (String::new(), gap) };
            line.push_str(&before);
            line.push_str(cell);
            line.push_str(&after);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `name: value` lines with the values below each other.
pub fn facts(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// Says on standard error how far something is, once it takes over two seconds.
pub struct Progress {
    what: String,
    started: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// For `what`, e.g. "checking homes".
    pub fn new(what: impl Into<String>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { what: what.into(), started: Instant::now(), shown: None, terminal }
    }

    /// Goes on with `what`.
    pub fn turn_to(&mut self, what: String) {
        self.what = what;
    }

    /// `state` is what has been reached, e.g. "12 of 40".
    pub fn at(&mut self, state: &str) {
        let every = if self.terminal { PROGRESS_EVERY } else { PROGRESS_LOG_EVERY };
        let due = match self.shown {
            None => self.started.elapsed() >= PROGRESS_AFTER,
            Some(shown) => shown.elapsed() >= every,
        };
        if !due {
            return;
        }
        self.shown = Some(Instant::now());
        let seconds = self.started.elapsed().as_secs();
        if self.terminal {
            eprint!("\r\x1b[K{}: {state} ({seconds} s)", self.what);
        } else {
            eprintln!("{}: {state} ({seconds} s)", self.what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

/// Waits for `work` and says meanwhile that `what` goes on.
pub async fn with_progress<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut progress = Progress::new(what);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(PROGRESS_EVERY) => progress.at("still at it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["ada".to_owned(), "1".to_owned()], vec!["b".into(), "100".into()]];
        assert_eq!(table(&["home", "n"], &[1], &rows), "home    n\nada     1\nb     100\n");
    }
}
