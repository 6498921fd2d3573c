//! RoleBinding and ClusterRoleBinding.

use jiff::Timestamp;

use super::super::columns::{AGE, col, list, wide};
use super::super::field::{Errors, Field};
use super::super::fill::{child_mut, fill, list_mut};
use super::super::{names, validate};
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// The strategy of both bindings.
pub(in super::super) struct Binding {
    /// A RoleBinding?
    pub(in super::super) namespaced: bool,
}

const GROUP: &str = "rbac.authorization.k8s.io";

impl Strategy for Binding {
    fn default(&self, object: &mut Value) {
        if let Some(reference) = child_mut(object, &["roleRef"]) {
            fill(reference, "apiGroup", GROUP);
        }
        let Some(map) = object.as_object_mut() else { return };
        for subject in list_mut(map, "subjects").filter_map(Value::as_object_mut) {
            if subject.get("kind").is_some_and(|kind| kind == "User" || kind == "Group") {
                fill(subject, "apiGroup", GROUP);
            }
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, _object: &mut Value) {}

    fn splits_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        check(&Field::root(object), self.namespaced, &mut out);
        out
    }

    fn validate_update(&self, _write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = self.validate_create(_write, new);
        let root = Field::root(new);
        let reference = root.get("roleRef");
        if !validate::same(reference.value(), old.get("roleRef").unwrap_or(&Value::Null)) {
            out.push(reference.invalid("cannot change roleRef"));
        }
        out
    }

    fn check_name(&self, name: &str) -> Option<String> {
        names::first(names::path_segment, name)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[col("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (kind, name) =
            (meta::text(object, &["roleRef", "kind"]), meta::text(object, &["roleRef", "name"]));
        let subjects = |kind: &str| -> Value {
            let own = list(object, &["subjects"]).iter();
            let shown: Vec<String> = own
                .filter(|subject| meta::text(subject, &["kind"]) == kind)
                .map(|subject| match kind {
                    "ServiceAccount" => format!(
                        "{}/{}",
                        meta::text(subject, &["namespace"]),
                        meta::text(subject, &["name"])
                    ),
                    _ => meta::text(subject, &["name"]).to_owned(),
                })
                .collect();
            shown.join(", ").into()
        };
        vec![
            format!("{kind}/{name}").into(),
            age(object, now).into(),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    }
}

fn check(root: &Field, namespaced: bool, out: &mut Errors) {
    let reference = root.get("roleRef");
    let (group, kind) = (reference.get("apiGroup"), reference.get("kind"));
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    supported(&group, &[GROUP], out);
    supported(&kind, kinds, out);
    validate::required_format(&reference.get("name"), names::path_segment, out);
    for subject in root.get("subjects").items() {
        let (name, group) = (subject.get("name"), subject.get("apiGroup"));
        validate::required(&name, out);
        match subject.get("kind").text() {
            "ServiceAccount" => {
                validate::optional_format(&name, names::dns_subdomain, out);
                supported(&group, &[""], out);
                if !namespaced {
                    validate::required(&subject.get("namespace"), out);
                }
            }
            "User" | "Group" => supported(&group, &[GROUP], out),
            _ => supported(&subject.get("kind"), &["ServiceAccount", "User", "Group"], out),
        }
    }
}

fn supported(field: &Field, allowed: &[&str], out: &mut Errors) {
    if !allowed.contains(&field.text()) {
        out.push(FieldError::not_supported(field.path(), field.text(), allowed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create, errors_of_update};
    use serde_json::json;

    #[test]
    fn a_binding_keeps_its_role() {
        let binding = Binding { namespaced: true };
        let make = |name: &str| {
            created(
                &binding,
                json!({"roleRef": {"kind": "Role", "name": name},
                       "subjects": [{"kind": "User", "name": "u"},
                                    {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
            )
        };
        let old = make("a");
        assert_eq!(errors_of_create(&binding, &old), Vec::<String>::new());
        assert_eq!(old["subjects"][0]["apiGroup"], GROUP);
        let texts = errors_of_update(&binding, "", &make("b"), &old);
        assert!(texts[0].ends_with(": cannot change roleRef"), "{texts:?}");
        let cells = binding.cells(&old, Timestamp::UNIX_EPOCH);
        assert_eq!(Value::from(cells), json!(["Role/a", "<unknown>", "u", "", "n/s"]));
        let cluster = Binding { namespaced: false };
        let texts = errors_of_create(&cluster, &old);
        assert_eq!(
            texts,
            ["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\""]
        );
    }
}
