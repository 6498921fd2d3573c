//! ReplicationController.
//!
//! Why its dependents are orphaned by default: clients of its time deleted the pods themselves.

use jiff::Timestamp;
use serde_json::json;

use super::super::apps::replicaset::{COLUMNS, COUNTERS, cells};
use super::super::columns::{labels, number};
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill};
use super::super::podspec::{self, workload};
use super::super::validate;
use crate::api::kind::{Column, Strategy, Write};
use crate::client::Propagation;
use crate::object::selector::Selector;
use crate::object::status::FieldError;
use crate::object::{Map, Value, meta};

/// The ReplicationController's strategy.
pub(in super::super) struct ReplicationController;

fn pairs(object: &Value) -> Option<&Map> {
    meta::at(object, &["spec", "selector"])?.as_object()
}

impl Strategy for ReplicationController {
    fn default(&self, object: &mut Value) {
        workload::default_template(object, &["spec", "template", "spec"]);
        let labels = meta::at(object, &["spec", "template", "metadata", "labels"]).cloned();
        if let Some(labels) = labels.filter(|labels| !labels.is_null()) {
            if pairs(object).is_none_or(Map::is_empty) {
                meta::set(object, &["spec", "selector"], labels.clone());
            }
            if meta::labels(object).is_none_or(Map::is_empty) {
                meta::set(object, &["metadata", "labels"], labels);
            }
        }
        if let Some(spec) = child_mut(object, &["spec"]) {
            fill(spec, "replicas", 1);
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        object["status"] = json!({ "replicas": 0 });
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        validate_spec(object)
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, _old: &Value) -> Vec<FieldError> {
        if write.subresource != "status" {
            return validate_spec(new);
        }
        let mut out = Errors::new();
        let text = "cannot be greater than readyReplicas";
        workload::counters(&Field::root(new).get("status"), COUNTERS, &[], text, &mut out);
        out
    }

    fn default_propagation(&self) -> Option<Propagation> {
        Some(Propagation::Orphan)
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.replicas", number(object, &["status", "replicas"]).to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, now, labels(pairs(object)).into())
    }
}

fn validate_spec(object: &Value) -> Errors {
    let mut out = Errors::new();
    let root = Field::root(object);
    let spec = root.get("spec");
    validate::all_non_negative(&spec, &["minReadySeconds", "replicas"], &mut out);
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    validate::required(&selector, &mut out);
    if !template.is_set() {
        out.push(template.required(""));
        return out;
    }
    let pairs = selector.entries().map(|(key, value)| (key, value.text()));
    validate::template_matches(&Selector::from_pairs(pairs), &template, &mut out);
    podspec::template(&template, &mut out);
    workload::runs_for_good(&template, "ReplicationController", &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create};

    #[test]
    fn the_selector_defaults_to_the_templates_labels() {
        let rc = created(
            &ReplicationController,
            json!({"metadata": {"name": "r"}, "spec": {"template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        );
        assert_eq!(rc["spec"]["selector"], json!({"a": "b"}));
        assert_eq!(rc["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(errors_of_create(&ReplicationController, &rc), Vec::<String>::new());
    }
}
