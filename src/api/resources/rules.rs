//! Validation as data: (path, rule) pairs.
//!
//! Why: for most kinds a rule is "this must be there", "this is one of these", "this may not
//! change"; a table of them is shorter than code and cannot forget the path in an error.

use super::field::{Errors, Field};
use super::names::Format;
use super::validate;
use crate::object::Value;

/// What a field must be like.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// It must be there.
    Required,
    /// It must be there and be one of these.
    OneOf(&'static [&'static str]),
    /// Where it is there, it is one of these.
    MayBeOneOf(&'static [&'static str]),
    /// Not below zero.
    NonNegative,
    /// Between these, both inclusive.
    Range(i64, i64),
    /// It must be there and have a format.
    Is(Format),
    /// Where it is there, it has a format.
    MayBe(Format),
    /// A `metav1.LabelSelector`.
    Selector,
    /// A map of labels.
    Labels,
    /// A quantity that is not negative.
    Amount,
    /// Anything else.
    Check(fn(&Field, &mut Errors)),
}

/// Rules and the fields they are for: `spec.ports[].name`.
pub(super) type Rules = &'static [(&'static str, Rule)];

/// What the rules find wrong with an object.
pub(super) fn check(object: &Value, rules: Rules) -> Errors {
    let mut out = Errors::new();
    check_below(&Field::root(object), rules, &mut out);
    out
}

/// As [`check`], for a part of an object.
pub(super) fn check_below(field: &Field, rules: Rules, out: &mut Errors) {
    for (path, rule) in rules {
        visit(field, path, rule, out);
    }
}

fn visit(field: &Field, path: &str, rule: &Rule, out: &mut Errors) {
    if path.is_empty() {
        return apply(field, rule, out);
    }
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    match step.strip_suffix("[]") {
        Some(name) => {
            let list = field.get(name);
            list.items().for_each(|item| visit(&item, rest, rule, out));
        }
        None => {
            let member = field.get(step);
            // What must be there need not be where its parent is not.
            if !rest.is_empty() && !member.is_set() {
                return;
            }
            visit(&member, rest, rule, out);
        }
    }
}

fn apply(field: &Field, rule: &Rule, out: &mut Errors) {
    match rule {
        Rule::Required => validate::required(field, out),
        Rule::OneOf(allowed) => validate::one_of(field, allowed, out),
        Rule::MayBeOneOf(allowed) => validate::optional_one_of(field, allowed, out),
        Rule::NonNegative => validate::non_negative(field, out),
        Rule::Range(low, high) => validate::in_range(field, *low, *high, out),
        Rule::Is(format) => validate::required_format(field, *format, out),
        Rule::MayBe(format) => validate::optional_format(field, *format, out),
        Rule::Selector => validate::label_selector(field, out),
        Rule::Labels => validate::labels(field, out),
        Rule::Amount => validate::quantity_non_negative(field, out),
        Rule::Check(check) => check(field, out),
    }
}

/// The paths whose values may not change.
pub(super) fn check_immutable(new: &Value, old: &Value, paths: &[&str], out: &mut Errors) {
    for path in paths {
        let steps: Vec<&str> = path.split('.').collect();
        validate::immutable_at(new, old, &steps, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_reach_into_lists_and_leave_missing_parents_alone() {
        const RULES: Rules = &[
            ("spec.kind", Rule::OneOf(&["A", "B"])),
            ("spec.ports[].port", Rule::Range(1, 65_535)),
            ("spec.extra.name", Rule::Required),
        ];
        let object = json!({"spec": {"kind": "C", "ports": [{"port": 80}, {"port": 0}]}});
        let texts: Vec<String> = check(&object, RULES).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.kind: Unsupported value: \"C\": supported values: \"A\", \"B\"",
                "spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ]
        );
    }
}
