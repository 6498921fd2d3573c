//! Checks a cron expression, as robfig/cron's standard parser reads it.
//!
//! Why checked when written: a schedule that cannot be read would only be told of in events.

/// (lowest, highest, names) of the five fields.
const FIELDS: [(u32, u32, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];
const DESCRIPTORS: &[&str] =
    &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// What is wrong with a schedule.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    let expression = match schedule.strip_prefix("TZ=").or(schedule.strip_prefix("CRON_TZ=")) {
        Some(rest) => rest.split_once(' ').map_or("", |(_, rest)| rest).trim(),
        None => schedule,
    };
    if expression.is_empty() {
        return Err("empty spec string".to_owned());
    }
    if expression.starts_with('@') {
        return descriptor(expression);
    }
    let fields: Vec<&str> = expression.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let (count, list) = (fields.len(), fields.join(" "));
        return Err(format!("expected exactly 5 fields, found {count}: [{list}]"));
    }
    for (field, (low, high, names)) in fields.into_iter().zip(FIELDS) {
        for part in field.split(',').filter(|part| !part.is_empty()) {
            range(part, low, high, names)?;
        }
    }
    Ok(())
}

fn descriptor(expression: &str) -> Result<(), String> {
    if DESCRIPTORS.contains(&expression) {
        return Ok(());
    }
    let Some(every) = expression.strip_prefix("@every ") else {
        return Err(format!("unrecognized descriptor: {expression}"));
    };
    if is_duration(every) {
        return Ok(());
    }
    Err(format!("failed to parse duration {expression}: time: invalid duration {every:?}"))
}

/// A Go duration like "1h30m".
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut found = false;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"];
        let units = unit.iter().filter_map(|unit| tail.strip_prefix(unit));
        let Some(tail) = units.min_by_key(|tail| tail.len()) else { return false };
        if number.parse::<f64>().is_err() {
            return false;
        }
        (rest, found) = (tail, true);
    }
    found
}

fn range(part: &str, low: u32, high: u32, names: &[&str]) -> Result<(), String> {
    let (span, step) = match part.split_once('/') {
        Some((_, step)) if step.contains('/') => {
            return Err(format!("too many slashes: {part}"));
        }
        Some((span, step)) => (span, Some(step)),
        None => (part, None),
    };
    let number = |text: &str| {
        let name = names.iter().position(|name| *name == text.to_lowercase());
        match name {
            Some(at) => Ok(low.max(u32::from(low > 0)) + u32::try_from(at).unwrap_or(0)),
            None => text.parse::<u32>().map_err(|_| {
                format!(
                    "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid \
                     syntax"
                )
            }),
        }
    };
    let (from, to) = match span {
        "*" | "?" => (low, high),
        _ => match span.split_once('-') {
            Some((_, to)) if to.contains('-') => return Err(format!("too many hyphens: {part}")),
            Some((from, to)) => (number(from)?, number(to)?),
            None => {
                let one = number(span)?;
                (one, if step.is_some() { high } else { one })
            }
        },
    };
    let step = step.map_or(Ok(1), number)?;
    if from < low {
        return Err(format!("beginning of range ({from}) below minimum ({low}): {part}"));
    }
    if to > high {
        return Err(format!("end of range ({to}) above maximum ({high}): {part}"));
    }
    if from > to {
        return Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_upstream_reads_them() {
        for good in ["* * * * *", "*/5 1-3,7 1 jan-MAR mon", "@hourly", "@every 1h30m", "0 0 ? * 0"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, fault) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* 5-3 * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@soon", "unrecognized descriptor: @soon"),
            ("", "empty spec string"),
        ] {
            assert_eq!(check(bad), Err(fault.to_owned()), "{bad}");
        }
    }
}
