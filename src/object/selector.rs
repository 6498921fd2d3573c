//! Label and field selectors: from a query's text, from a `LabelSelector`, and matching.
//!
//! Why one type for both sources: lists, watches, controllers and Services must agree on what
//! matches (apimachinery `labels/selector.go`, `fields/selector.go`).

use std::collections::BTreeSet;

use super::{Map, Value};

/// What one requirement demands of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The value is one of the given.
    In,
    /// The label is missing or its value is none of the given.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The value is a greater number.
    GreaterThan,
    /// The value is a smaller number.
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What is demanded.
    pub operator: Operator,
    /// The operands.
    pub values: BTreeSet<String>,
}

impl Requirement {
    /// Whether labels, read by `get`, meet it.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let value = get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compares(value, |have, want| have > want),
            Operator::LessThan => self.compares(value, |have, want| have < want),
        }
    }

    fn compares(&self, value: Option<&str>, holds: impl Fn(i64, i64) -> bool) -> bool {
        let want = self.values.first().and_then(|text| text.parse().ok());
        let have = value.and_then(|text| text.parse().ok());
        matches!((have, want), (Some(have), Some(want)) if holds(have, want))
    }
}

/// A conjunction of requirements. The empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// All must hold.
    pub requirements: Vec<Requirement>,
    /// Matches nothing at all (a `nil` LabelSelector).
    pub nothing: bool,
}

impl Selector {
    /// Matches everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches nothing.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Whether it puts no condition at all.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Equality with each of the given pairs (a Service's or an RC's selector).
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let requirements = pairs
            .into_iter()
            .map(|(key, value)| Requirement {
                key: key.as_ref().to_owned(),
                operator: Operator::In,
                values: BTreeSet::from([value.as_ref().to_owned()]),
            })
            .collect();
        Self { requirements, nothing: false }
    }

    /// From a `metav1.LabelSelector` value; null matches nothing, an empty one everything.
    pub fn from_label_selector(selector: &Value) -> Result<Self, String> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut result = Self::everything();
        if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
            let pairs = labels.iter().filter_map(|(key, value)| Some((key, value.as_str()?)));
            result = Self::from_pairs(pairs);
        }
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        for expression in expressions.into_iter().flatten() {
            let key = expression.get("key").and_then(Value::as_str).unwrap_or("");
            let values: BTreeSet<String> = expression
                .get("values")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect();
            let operator = match expression.get("operator").and_then(Value::as_str).unwrap_or("") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            result.requirements.push(Requirement { key: key.to_owned(), operator, values });
        }
        Ok(result)
    }

    /// From the text of a `labelSelector` query: `a=b,c!=d,e in (f,g),!h,i,j>1`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err("found ',', expected: identifier".to_owned());
            }
            requirements.push(requirement(part)?);
        }
        requirements.sort_by(|a: &Requirement, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Whether labels, read by `get`, match.
    pub fn matches_by<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|need| need.matches(&get))
    }

    /// Whether a `metadata.labels` map matches.
    pub fn matches(&self, labels: Option<&Map>) -> bool {
        self.matches_by(|key| labels?.get(key)?.as_str())
    }

    /// Whether the labels of a typed object match.
    pub fn matches_labels(
        &self,
        labels: Option<&std::collections::BTreeMap<String, String>>,
    ) -> bool {
        self.matches_by(|key| labels?.get(key).map(String::as_str))
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |values: &BTreeSet<String>| {
            values.iter().map(String::as_str).collect::<Vec<_>>().join(",")
        };
        for (at, need) in self.requirements.iter().enumerate() {
            if at > 0 {
                out.write_str(",")?;
            }
            let key = &need.key;
            let values = list(&need.values);
            match need.operator {
                Operator::In if need.values.len() == 1 => write!(out, "{key}={values}")?,
                Operator::In => write!(out, "{key} in ({values})")?,
                Operator::NotIn if need.values.len() == 1 => write!(out, "{key}!={values}")?,
                Operator::NotIn => write!(out, "{key} notin ({values})")?,
                Operator::Exists => write!(out, "{key}")?,
                Operator::DoesNotExist => write!(out, "!{key}")?,
                Operator::GreaterThan => write!(out, "{key}>{values}")?,
                Operator::LessThan => write!(out, "{key}<{values}")?,
            }
        }
        Ok(())
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let made = |key: &str, operator, values: BTreeSet<String>| {
        let key = key.trim();
        check_key(key)?;
        for value in &values {
            check_value(key, value)?;
        }
        Ok(Requirement { key: key.to_owned(), operator, values })
    };
    let one = |value: &str| BTreeSet::from([value.trim().to_owned()]);
    if let Some(key) = part.strip_prefix('!') {
        return made(key, Operator::DoesNotExist, BTreeSet::new());
    }
    if let Some((head, list)) = part.split_once('(') {
        let list = list
            .strip_suffix(')')
            .ok_or_else(|| format!("unable to parse requirement: found {part:?}, expected: ')'"))?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        let (key, operator) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        return match operator {
            "in" => made(key, Operator::In, values),
            "notin" => made(key, Operator::NotIn, values),
            other => Err(format!(
                "unable to parse requirement: found '{other}', expected: in, notin, =, ==, !=, gt, lt"
            )),
        };
    }
    for (sign, operator) in [
        ("!=", Operator::NotIn),
        ("==", Operator::In),
        ("=", Operator::In),
        (">", Operator::GreaterThan),
        ("<", Operator::LessThan),
    ] {
        if let Some((key, value)) = part.split_once(sign) {
            return made(key, operator, one(value));
        }
    }
    if part.split_whitespace().count() > 1 {
        let second = part.split_whitespace().nth(1).unwrap_or("");
        return Err(format!(
            "unable to parse requirement: found '{second}', expected: in, notin, =, ==, !=, gt, lt"
        ));
    }
    made(part, Operator::Exists, BTreeSet::new())
}

fn name_part_is_valid(text: &str, max: usize) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    text.len() <= max
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// Whether a text may be a label's key: `[prefix/]name`.
pub fn is_qualified_name(key: &str) -> bool {
    match key.split_once('/') {
        None => name_part_is_valid(key, 63),
        Some((prefix, name)) => is_dns_subdomain(prefix) && name_part_is_valid(name, 63),
    }
}

/// Whether a text may be a label's value.
pub fn is_label_value(value: &str) -> bool {
    value.is_empty() || name_part_is_valid(value, 63)
}

/// RFC 1123 subdomain, at most 253 bytes.
pub fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_part)
}

/// RFC 1123 label, at most 63 bytes.
pub fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_part(text)
}

fn is_dns_part(label: &str) -> bool {
    let bytes = label.as_bytes();
    let alnum = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.first().is_some_and(alnum)
        && bytes.last().is_some_and(alnum)
        && bytes.iter().all(|byte| alnum(byte) || *byte == b'-')
}

fn check_key(key: &str) -> Result<(), String> {
    if is_qualified_name(key) {
        return Ok(());
    }
    Err(format!(
        "key: Invalid value: {key:?}: name part must consist of alphanumeric characters, '-', '_' \
         or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or \
         'my.name',  or '123-abc', regex used for validation is \
         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
    ))
}

fn check_value(key: &str, value: &str) -> Result<(), String> {
    if is_label_value(value) {
        return Ok(());
    }
    Err(format!(
        "values[0][{key}]: Invalid value: {value:?}: a valid label must be an empty string or \
         consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
         alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
         validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    ))
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field's path, as in "spec.nodeName".
    pub field: String,
    /// The operand.
    pub value: String,
    /// `!=` instead of `=`.
    pub negated: bool,
}

/// Reads a `fieldSelector` query: `a=b,c!=d`, with `\` escapes.
pub fn parse_fields(text: &str) -> Result<Vec<FieldRequirement>, String> {
    let mut requirements = Vec::new();
    for part in split_unescaped(text) {
        if part.is_empty() {
            continue;
        }
        let found = ["!=", "==", "="]
            .iter()
            .filter_map(|sign| part.find(sign).map(|at| (at, *sign)))
            .min_by_key(|(at, sign)| (*at, usize::MAX - sign.len()));
        let Some((at, sign)) = found else {
            return Err(format!("invalid selector: '{text}'; can't understand '{part}'"));
        };
        requirements.push(FieldRequirement {
            field: part[..at].to_owned(),
            value: unescape(&part[at + sign.len()..]),
            negated: sign == "!=",
        });
    }
    Ok(requirements)
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => result.extend(characters.next()),
            other => result.push(other),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(selector: &str, labels: Value) -> bool {
        Selector::parse(selector).unwrap().matches(labels.as_object())
    }

    #[test]
    fn texts_match_as_upstream() {
        assert!(matches("a=b,c!=d", json!({"a": "b"})));
        assert!(!matches("a=b,c!=d", json!({"a": "b", "c": "d"})));
        assert!(matches("a in (x, y),!z", json!({"a": "y"})));
        assert!(!matches("a notin (x,y)", json!({"a": "y"})));
        assert!(matches("a notin (x,y)", json!({})));
        assert!(matches("n>3,n<5", json!({"n": "4"})));
        assert!(matches("", json!({})));
        assert!(matches("a=", json!({"a": ""})));
        for wrong in ["a b", "a in x", "a in (x", "a=b,,c=d", "-a=b", "a=b c"] {
            assert!(Selector::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn label_selectors_null_and_empty_differ() {
        let everything = Selector::from_label_selector(&json!({})).unwrap();
        assert!(everything.matches(None));
        let nothing = Selector::from_label_selector(&Value::Null).unwrap();
        assert!(!nothing.matches(None));
        let both = json!({"matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "c", "operator": "Exists"}]});
        let both = Selector::from_label_selector(&both).unwrap();
        assert!(both.matches(json!({"a": "b", "c": ""}).as_object()));
        assert_eq!(both.to_string(), "a=b,c");
    }

    #[test]
    fn field_selectors() {
        let parsed = parse_fields("spec.nodeName=a,status.phase!=Running,x==y\\,z").unwrap();
        assert_eq!(parsed.len(), 3);
        assert!(parsed[1].negated);
        assert_eq!(parsed[2].value, "y,z");
        assert!(parse_fields("nonsense").is_err());
    }
}
