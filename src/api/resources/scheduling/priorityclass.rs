//! PriorityClass.
//!
//! Why its value is fixed: pods carry a copy of it.

use jiff::Timestamp;

use super::super::columns::{AGE, boolean, int, number, wide};
use super::super::field::{Errors, Field};
use super::super::fill::fill;
use super::super::validate;
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// The PriorityClass's strategy.
pub(in super::super) struct PriorityClass;

/// The highest value that a user may give.
const USER_MAX: i64 = 1_000_000_000;
/// The classes with the prefix that is kept for the system, and their values.
const SYSTEM: &[(&str, i64)] =
    &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
const SYSTEM_PREFIX: &str = "system-";

impl Strategy for PriorityClass {
    fn default(&self, object: &mut Value) {
        if let Some(map) = object.as_object_mut() {
            fill(map, "preemptionPolicy", "PreemptLowerPriority");
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, _object: &mut Value) {}

    fn splits_status(&self) -> bool {
        false
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        let root = Field::root(object);
        let value = root.get("value").int().unwrap_or(0);
        if meta::name(object).starts_with(SYSTEM_PREFIX) {
            if let Some(why) = system_fault(object, value) {
                out.push(FieldError::forbidden(
                    "metadata.name",
                    format!(
                        "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for \
                         system use only. error: {why}"
                    ),
                ));
            }
        } else if value > USER_MAX {
            out.push(root.get("value").forbidden(format!(
                "maximum allowed value of a user defined priority is {USER_MAX}"
            )));
        }
        let policies = ["PreemptLowerPriority", "Never"];
        validate::optional_one_of(&root.get("preemptionPolicy"), &policies, &mut out);
        out
    }

    fn validate_update(&self, _write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        if number(new, &["value"]) != number(old, &["value"]) {
            out.push(FieldError::forbidden("value", "may not be changed in an update."));
        }
        validate::immutable_at(new, old, &["preemptionPolicy"], &mut out);
        out
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[int("Value"), boolean("Global-Default"), AGE, wide("PreemptionPolicy")];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            number(object, &["value"]).into(),
            is_default(object).into(),
            age(object, now).into(),
            meta::text(object, &["preemptionPolicy"]).into(),
        ]
    }
}

fn is_default(object: &Value) -> bool {
    object.get("globalDefault") == Some(&Value::Bool(true))
}

fn system_fault(object: &Value, value: i64) -> Option<String> {
    let name = meta::name(object);
    match SYSTEM.iter().find(|(known, _)| *known == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some((_, known)) if *known != value => {
            Some(format!("value of {name} PriorityClass must be {known}"))
        }
        Some(_) if is_default(object) => {
            Some(format!("globalDefault of {name} PriorityClass must be false"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{errors_of_create, errors_of_update};
    use serde_json::json;

    #[test]
    fn values_are_bounded_and_stay() {
        let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value});
        assert_eq!(
            errors_of_create(&PriorityClass, &class("a", USER_MAX + 1)),
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
        );
        let system = class("system-node-critical", 2_000_001_000);
        assert_eq!(errors_of_create(&PriorityClass, &system), Vec::<String>::new());
        assert_eq!(
            errors_of_create(&PriorityClass, &class("system-mine", 1)),
            ["metadata.name: Forbidden: priority class names with 'system-' prefix are reserved \
              for system use only. error: system-mine is not a known system priority class"]
        );
        assert_eq!(
            errors_of_update(&PriorityClass, "", &class("a", 2), &class("a", 1)),
            ["value: Forbidden: may not be changed in an update."]
        );
    }
}
