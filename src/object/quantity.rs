//! Resource quantities ("100m", "1Gi", "1e3"), exact to the nano.
//!
//! Why an `i128` of nanos: every quantity upstream accepts (up to 2^63-1, down to 1n) fits, so sums
//! and comparisons are exact and need no float (apimachinery `api/resource/quantity.go`).

use std::fmt;

const NANOS: i128 = 1_000_000_000;

/// The family of suffixes that a quantity was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 1000-based: n u m k M G T P E.
    DecimalSi,
    /// 1024-based: Ki Mi Gi Ti Pi Ei.
    BinarySi,
    /// Powers of ten: e3, E-2.
    DecimalExponent,
}

/// A quantity; equality and order ignore how it was written.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Upstream's text for an unreadable quantity.
pub const ERROR_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Reads a quantity; fractions finer than a nano are rounded up, as upstream does.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || ERROR_FORMAT.to_owned();
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(wrong()),
        };
        let digits_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(wrong());
        }
        let (multiplier, exponent, format) = scale_of(suffix).ok_or_else(wrong)?;
        let nanos = scaled(whole, fraction, multiplier, exponent);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }

    /// A whole number.
    pub const fn from_units(units: i64) -> Self {
        Self { nanos: units as i128 * NANOS, format: Format::DecimalSi }
    }

    /// Thousandths, as CPU is counted.
    pub const fn from_millis(millis: i64) -> Self {
        Self { nanos: millis as i128 * 1_000_000, format: Format::DecimalSi }
    }

    /// A number of bytes, written with binary suffixes.
    pub const fn from_bytes(bytes: i64) -> Self {
        Self { nanos: bytes as i128 * NANOS, format: Format::BinarySi }
    }

    /// Whole units, rounded up.
    pub fn units(&self) -> i64 {
        clamp(div_ceil(self.nanos, NANOS))
    }

    /// Thousandths, rounded up.
    pub fn millis(&self) -> i64 {
        clamp(div_ceil(self.nanos, 1_000_000))
    }

    /// The value as a float.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// Below zero?
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Zero?
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// The sum, in this one's format.
    pub fn plus(&self, other: &Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }

    /// The difference, in this one's format.
    pub fn minus(&self, other: &Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_sub(other.nanos), format }
    }

    /// A thousandth part matters (for checks that want whole units).
    pub fn is_whole(&self) -> bool {
        self.nanos % NANOS == 0
    }

    /// The canonical text of `text`, or `None` if it is no quantity.
    pub fn canonical(text: &str) -> Option<String> {
        Self::parse(text).ok().map(|quantity| quantity.to_string())
    }
}

fn clamp(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

fn div_ceil(number: i128, by: i128) -> i128 {
    number.div_euclid(by) + i128::from(number.rem_euclid(by) != 0)
}

/// (multiplier, power of ten, format) of a suffix.
fn scale_of(suffix: &str) -> Option<(i128, i32, Format)> {
    let binary = |shift: u32| Some((1_i128 << shift, 0, Format::BinarySi));
    let decimal = |power: i32| Some((1, power, Format::DecimalSi));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let power: i32 = exponent.parse().ok()?;
            Some((1, power, Format::DecimalExponent))
        }
    }
}

/// `whole.fraction * multiplier * 10^exponent` in nanos, rounded up, capped at upstream's 2^63-1.
fn scaled(whole: &str, fraction: &str, multiplier: i128, exponent: i32) -> i128 {
    const CAP: i128 = i64::MAX as i128 * NANOS;
    let mut mantissa: i128 = 0;
    let mut power = i64::from(exponent) + 9;
    let mut lost = false;
    let digits = whole.bytes().map(|d| (d, false)).chain(fraction.bytes().map(|d| (d, true)));
    for (digit, fractional) in digits {
        if mantissa < i128::MAX / 1_000 / multiplier.max(1) / 10 {
            mantissa = mantissa * 10 + i128::from(digit - b'0');
            power -= i64::from(fractional);
        } else {
            lost |= digit != b'0';
            power += i64::from(!fractional);
        }
    }
    mantissa *= multiplier;
    while power > 0 && mantissa != 0 {
        if mantissa > CAP {
            return CAP;
        }
        mantissa *= 10;
        power -= 1;
    }
    while power < 0 && mantissa != 0 {
        lost |= mantissa % 10 != 0;
        mantissa /= 10;
        power += 1;
    }
    (mantissa + i128::from(lost)).min(CAP)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that keeps every digit.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return out.write_str("0");
        }
        let whole = self.nanos % NANOS == 0;
        if self.format == Format::BinarySi && whole && self.nanos.abs() / NANOS >= 1024 {
            let mut number = self.nanos / NANOS;
            let mut suffix = "";
            for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
                if number % 1024 != 0 {
                    break;
                }
                number /= 1024;
                suffix = next;
            }
            return write!(out, "{number}{suffix}");
        }
        let mut number = self.nanos;
        let mut power = -9;
        while number % 1000 == 0 && power < 18 {
            number /= 1000;
            power += 3;
        }
        if self.format == Format::DecimalExponent {
            return match power {
                0 => write!(out, "{number}"),
                _ => write!(out, "{number}e{power}"),
            };
        }
        let suffix = match power {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        write!(out, "{number}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms_are_upstreams() {
        for (text, canonical) in [
            ("0", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("100", "100"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("1e4", "10e3"),
            ("0.0000000001", "1n"),
            ("-1", "-1"),
            ("0.5Ki", "512"),
            ("9223372036854775808", "9223372036854775807"),
        ] {
            assert_eq!(Quantity::canonical(text).as_deref(), Some(canonical), "{text}");
        }
        for text in ["", "1 ", "x", "1.2.3", "1kk", "1ki", "-", "."] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        assert_eq!(Quantity::parse("1m").unwrap().units(), 1);
        assert_eq!(Quantity::parse("100u").unwrap().millis(), 1);
        assert_eq!(Quantity::parse("1Gi").unwrap().units(), 1 << 30);
        assert!(Quantity::parse("1Gi").unwrap() > Quantity::parse("1G").unwrap());
        assert_eq!(Quantity::parse("1").unwrap(), Quantity::parse("1000m").unwrap());
    }
}
