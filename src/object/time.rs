//! The two time formats of the API: seconds (`metav1.Time`) and microseconds (`MicroTime`).
//!
//! Why: clients compare these texts; upstream writes UTC with a `Z` and no fraction of a second,
//! or exactly six digits.

use jiff::Timestamp;

/// RFC 3339 in UTC, whole seconds.
pub fn seconds(time: Timestamp) -> String {
    jiff::fmt::temporal::DateTimePrinter::new().precision(Some(0)).timestamp_to_string(&time)
}

/// RFC 3339 in UTC with six digits of a second.
pub fn micros(time: Timestamp) -> String {
    jiff::fmt::temporal::DateTimePrinter::new().precision(Some(6)).timestamp_to_string(&time)
}

/// Reads either form, with any offset.
pub fn parse(text: &str) -> Option<Timestamp> {
    // RFC 3339 wants a date, a `T` and an offset; jiff alone would take more.
    let bytes = text.as_bytes();
    if bytes.len() < 20 || !matches!(bytes[10], b'T' | b't') {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_fixed_width() {
        let time = parse("2026-11-23T14:00:05.25+01:00").unwrap();
        assert_eq!(seconds(time), "2026-11-23T13:00:05Z");
        assert_eq!(micros(time), "2026-11-23T13:00:05.250000Z");
        assert_eq!(parse("2026-11-23"), None);
        assert_eq!(parse("yesterday"), None);
    }
}
