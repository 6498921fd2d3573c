//! Scalars that have a form of their own: numbers, times, quantities, YAML 1.1 words.
//!
//! Why canonical: two texts of one quantity or time must be one value, or updates that change
//! nothing would count as changes.

use std::borrow::Cow;

use super::scan::Node;
use crate::object::quantity::Quantity;
use crate::object::schema::Type;
use crate::object::{Value, time};

/// An integer of 64 or 32 bits.
pub(super) fn integer(text: &str, narrow: bool) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    (!narrow || i32::try_from(number).is_ok()).then_some(number)
}

/// A finite number.
pub(super) fn double(text: &str) -> Option<Value> {
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    match integer(text, false) {
        Some(whole) => Some(whole.into()),
        None => serde_json::Number::from_f64(number).map(Value::Number),
    }
}

/// A number of no type: an integer where it is written as one and fits.
pub(super) fn number(text: &str) -> Option<Value> {
    double(text)
}

/// The canonical form of a quantity, or upstream's error.
pub(super) fn quantity(text: &str) -> Result<String, String> {
    Quantity::parse(text).map(|quantity| quantity.to_string())
}

/// The canonical form of a time, or Go's error.
pub(super) fn time(text: &str, ty: &Type) -> Result<String, String> {
    let layout = match ty {
        Type::MicroTime => "2006-01-02T15:04:05.000000Z07:00",
        _ => "2006-01-02T15:04:05Z07:00",
    };
    match time::parse(text) {
        Some(at) if *ty == Type::MicroTime => Ok(time::micros(at)),
        Some(at) => Ok(time::seconds(at)),
        None => Err(format!("parsing time {text:?} as {layout:?}: {}", misfit(text))),
    }
}

/// The first part of a time that does not fit, as Go says it.
fn misfit(text: &str) -> String {
    let mut rest = text;
    for part in ["2006", "-", "01", "-", "02", "T", "15", ":", "04", ":", "05"] {
        let fits = rest.get(..part.len()).is_some_and(|have| match part.as_bytes() {
            [b'-' | b':' | b'T'] => have == part,
            _ => have.bytes().all(|byte| byte.is_ascii_digit()),
        });
        if !fits {
            return format!("cannot parse {rest:?} as {part:?}");
        }
        rest = &rest[part.len()..];
    }
    match rest.is_empty() || !rest.ends_with('Z') {
        true => format!("cannot parse {rest:?} as \"Z07:00\""),
        false => "value out of range".to_owned(),
    }
}

/// What YAML 1.1 (and so kubectl) makes of a scalar that YAML 1.2 takes for a text. The type
/// decides, because serde_yaml does not tell a plain scalar from a quoted one.
pub(super) fn resolve<'a>(text: Cow<'a, str>, ty: &Type) -> Node<'a> {
    match ty {
        Type::Bool => match text.as_ref() {
            "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Node::Bool(true),
            "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Node::Bool(false),
            _ => Node::String(text),
        },
        Type::Int32 | Type::Int64 | Type::Double => match yaml_integer(&text) {
            Some(number) => Node::Number(number.to_string().into()),
            None => Node::String(text),
        },
        _ => Node::String(text),
    }
}

fn yaml_integer(text: &str) -> Option<i64> {
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix(['-', '+']) {
        Some(rest) if plain.starts_with('-') => (-1, rest),
        Some(rest) => (1, rest),
        None => (1, plain.as_str()),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (digits, radix) = match digits.get(..2) {
        Some("0x" | "0X") => (&digits[2..], 16),
        Some("0b" | "0B") => (&digits[2..], 2),
        Some("0o" | "0O") => (&digits[2..], 8),
        Some(_) if digits.starts_with('0') => (&digits[1..], 8),
        _ => (digits, 10),
    };
    i64::from_str_radix(digits, radix).ok().map(|number| sign * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_canonical_and_errors_gos() {
        assert_eq!(
            time("2026-01-02T03:04:05.9+01:00", &Type::Time).unwrap(),
            "2026-01-02T02:04:05Z"
        );
        assert_eq!(
            time("2026-01-x", &Type::Time).unwrap_err(),
            "parsing time \"2026-01-x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \
             \"02\""
        );
    }

    #[test]
    fn yaml_words_follow_the_type() {
        assert_eq!(resolve("0644".into(), &Type::Int32), Node::Number("420".into()));
        assert_eq!(resolve("1_000".into(), &Type::Int64), Node::Number("1000".into()));
        assert_eq!(resolve("yes".into(), &Type::Bool), Node::Bool(true));
        assert_eq!(resolve("yes".into(), &Type::String("")), Node::String("yes".into()));
        assert_eq!(resolve("08".into(), &Type::Int32), Node::String("08".into()));
    }
}
