//! Names of users, as the system knows them (NSS, by way of getent).

use std::process::Command;

/// A user of this system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
}

/// Looks a user up by name or number.
pub fn find(key: &str) -> Option<User> {
    let output = Command::new("getent").args(["passwd", "--", key]).output().ok()?;
    parse(std::str::from_utf8(&output.stdout).ok()?.lines().next()?)
}

/// The name of a user id.
pub fn name_of(uid: u32) -> Option<String> {
    find(&uid.to_string()).map(|user| user.name)
}

/// One line of passwd(5).
fn parse(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let (name, _password) = (fields.next()?.to_owned(), fields.next()?);
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(User { name, uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passwd_line_is_read() {
        let user = parse("ada:x:1001:1002:Ada:/home/ada:/bin/sh").expect("is one");
        assert_eq!(user, User { name: "ada".into(), uid: 1001, gid: 1002 });
        assert_eq!(parse("nonsense"), None);
    }
}
