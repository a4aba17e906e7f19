//! Sizes, counts and spans of time as people write and read them.
//!
//! Bytes: `50G` and `50GiB` are binary (50 x 2^30), `50GB` is decimal (50 x 10^9), a bare number
//! is bytes. Counts are decimal: `1M` inodes are 1,000,000. `none` is no limit. Fractions are
//! exact as long as they come out as whole bytes, and are rounded down otherwise.

use std::time::Duration;

/// What stands for "no limit" in records.
pub const NO_LIMIT: u64 = u64::MAX;

const BINARY: [(&str, u64); 6] = [
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("p", 1 << 50),
    ("e", 1 << 60),
];
const DECIMAL: [(&str, u64); 6] = [
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("p", 1_000_000_000_000_000),
    ("e", 1_000_000_000_000_000_000),
];

/// Reads a size in bytes; `none` gives [`NO_LIMIT`].
///
/// # Errors
/// A sentence that says what was wrong and what is right.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let help = "write a size like 50G (binary), 50GB (decimal), 1048576 or none";
    if is_none(text) {
        return Ok(NO_LIMIT);
    }
    let (number, written) = split(text);
    if number.is_empty() {
        return Err(format!("not a size: {help}"));
    }
    let unit = written.to_ascii_lowercase();
    let factor = match unit.as_str() {
        "" | "b" => Some(1),
        u => u
            .strip_suffix("ib")
            .or((u.len() == 1).then_some(u))
            .and_then(|u| lookup(&BINARY, u))
            .or_else(|| u.strip_suffix('b').and_then(|u| lookup(&DECIMAL, u))),
    };
    let factor = factor.ok_or_else(|| format!("unknown unit `{written}`: {help}"))?;
    multiply(number, factor).ok_or_else(|| format!("not a size: {help}"))
}

/// Reads a count, decimal; `none` gives [`NO_LIMIT`].
///
/// # Errors
/// A sentence that says what was wrong and what is right.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let help = "write a count like 250000, 200k, 1M (1,000,000) or none";
    if is_none(text) {
        return Ok(NO_LIMIT);
    }
    let (number, unit) = split(text);
    if number.is_empty() {
        return Err(format!("not a count: {help}"));
    }
    let unit = unit.to_ascii_lowercase();
    let factor = if unit.is_empty() { Some(1) } else { lookup(&DECIMAL, &unit) };
    let factor = factor.ok_or_else(|| format!("unknown unit `{unit}`: {help}"))?;
    multiply(number, factor).ok_or_else(|| format!("not a count: {help}"))
}

/// Reads a span of time: `500ms`, `5s`, `2m`, `1h`, `14d`.
///
/// # Errors
/// A sentence that says what was wrong and what is right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let help = "write a time like 500ms, 5s, 2m, 1h or 14d";
    let (number, unit) = split(text);
    if number.is_empty() {
        return Err(format!("not a time: {help}"));
    }
    let factor_ms = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(format!("a unit is missing: {help}")),
        other => return Err(format!("unknown unit `{other}`: {help}")),
    };
    let ms = multiply(number, factor_ms).ok_or_else(|| format!("not a time: {help}"))?;
    Ok(Duration::from_millis(ms))
}

/// For clap: a size of at least one byte.
pub fn parse_bytes_arg(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        0 => Err("must be more than 0; `none` is no limit".to_owned()),
        bytes => Ok(bytes),
    }
}

/// For clap: a count of at least one.
pub fn parse_count_arg(text: &str) -> Result<u64, String> {
    match parse_count(text)? {
        0 => Err("must be more than 0; `none` is no limit".to_owned()),
        count => Ok(count),
    }
}

/// Bytes for people: `1.5 GiB`, `812 B`, `none`.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    if bytes == NO_LIMIT {
        return "none".to_owned();
    }
    for (unit, factor) in BINARY.iter().rev() {
        if bytes >= *factor {
            let unit = unit.to_ascii_uppercase();
            let tenths = u128::from(bytes) * 10 / u128::from(*factor);
            // Exact multiples read better without a fraction: a quota of 50 GiB.
            return if tenths >= 1_000 || bytes.is_multiple_of(*factor) {
                format!("{} {unit}iB", tenths / 10)
            } else {
                format!("{}.{} {unit}iB", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} B")
}

/// A count for people: `1,234,567`, `none`.
#[must_use]
pub fn show_count(count: u64) -> String {
    if count == NO_LIMIT {
        return "none".to_owned();
    }
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A span of time for people: `3 d 4 h`, `2 min 5 s`, `7 s`.
#[must_use]
pub fn show_duration(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{m} min {s} s"),
        (0, ..) => format!("{h} h {m} min"),
        _ => format!("{d} d {h} h"),
    }
}

fn is_none(text: &str) -> bool {
    text.eq_ignore_ascii_case("none") || text.eq_ignore_ascii_case("unlimited")
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn lookup(units: &[(&str, u64)], name: &str) -> Option<u64> {
    units.iter().find(|(unit, _)| *unit == name).map(|(_, factor)| *factor)
}

fn multiply(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // More digits than this say nothing about bytes and would overflow.
    const FRACTION_DIGITS_MAX: usize = 12;
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > FRACTION_DIGITS_MAX {
        return None;
    }
    let parse = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u64>().ok() };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let units = u128::from(parse(whole)?) * scale + u128::from(parse(fraction)?);
    let value = u64::try_from(units.checked_mul(u128::from(factor))? / scale).ok()?;
    (value != NO_LIMIT).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_unit_is_binary_and_a_b_makes_it_decimal() {
        assert_eq!(parse_bytes("50G"), Ok(50 << 30));
        assert_eq!(parse_bytes("50GiB"), Ok(50 << 30));
        assert_eq!(parse_bytes("50gb"), Ok(50_000_000_000));
        assert_eq!(parse_bytes("50 GB"), Ok(50_000_000_000));
        assert_eq!(parse_bytes("1.5k"), Ok(1536));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("1b"), Ok(1));
        assert_eq!(parse_bytes("none"), Ok(NO_LIMIT));
    }

    #[test]
    fn counts_are_decimal() {
        assert_eq!(parse_count("1M"), Ok(1_000_000));
        assert_eq!(parse_count("200k"), Ok(200_000));
        assert_eq!(parse_count("0.5k"), Ok(500));
        assert!(parse_count("1MB").is_err());
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for bad in ["", "G", "12Q", "1..2G", "-1G", "99999999999G", "1Gi", "1.2.3"] {
            let error = parse_bytes(bad).expect_err(bad);
            assert!(error.contains("50G"), "{bad}: {error}");
        }
        assert!(parse_duration("5").expect_err("no unit").contains("unit is missing"));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        for text in ["1 B", "50 GiB", "1.5 KiB", "999 MiB", "none"] {
            let bytes = parse_bytes(text).expect(text);
            assert_eq!(show_bytes(bytes), text);
        }
        assert_eq!(show_count(1_234_567), "1,234,567");
        assert_eq!(show_count(12), "12");
        assert_eq!(show_duration(125), "2 min 5 s");
    }
}
