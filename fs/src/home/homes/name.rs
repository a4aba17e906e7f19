//! How homes may be called: like the users of a Unix system, wherever those come from.
//!
//! What always holds: a name is one path component, means the same to a shell without quotes,
//! and is never taken for an option or for a user id.

use super::error::HomesError;

/// Longest name in bytes: `user@domain` of a directory service fits.
const NAME_BYTES_MAX: usize = 64;

/// Checks how a home is to be called.
///
/// # Errors
/// `Invalid`, with what is wrong.
pub fn check(name: &str) -> Result<(), HomesError> {
    let why = match problem(name) {
        None => return Ok(()),
        Some(why) => why,
    };
    // What was typed may be anything, and of any length.
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    Err(HomesError::Invalid { name: shown, why })
}

fn problem(name: &str) -> Option<&'static str> {
    let inner =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@');
    let Some(first) = name.bytes().next() else {
        return Some("it is empty");
    };
    if name.len() > NAME_BYTES_MAX {
        return Some("it is longer than 64 bytes");
    }
    if !name.bytes().all(inner) {
        return Some("only letters and digits of ASCII, `_`, `-`, `.` and `@` may be in it");
    }
    if !first.is_ascii_alphanumeric() && first != b'_' {
        return Some("it must begin with a letter, a digit or `_`");
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("only digits would be taken for a user id");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_names_are_names_of_homes() {
        let long = "a".repeat(64);
        let names = ["ada", "_apt", "a", "Ada.L", "3d-lab", "ada@uni.example", "x_1-2", &long];
        for name in names {
            assert!(check(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_no_user_could_be_called_is_refused_with_a_reason() {
        let long = "a".repeat(65);
        let table = [
            ("", "empty"),
            (".", "begin"),
            ("..", "begin"),
            (".git", "begin"),
            ("-rf", "begin"),
            ("@x", "begin"),
            ("a/b", "only letters"),
            ("a b", "only letters"),
            ("a\0", "only letters"),
            ("a%2fb", "only letters"),
            ("ädä", "only letters"),
            ("1000", "user id"),
            (&long, "64"),
        ];
        for (name, why) in table {
            let error = check(name).unwrap_err().to_string();
            assert!(error.contains(why), "{name:?}: {error}");
        }
    }
}
