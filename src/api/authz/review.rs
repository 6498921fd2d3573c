//! Access reviews: answers to "may they?", never stored.

use std::sync::Arc;

use serde_json::json;

use super::node::node_of;
use super::{Authorization, Authorizer, Decision};
use crate::api::context::Attributes;
use crate::client::User;
use crate::object::status::{FieldError, Result};
use crate::object::{Gvr, Status, Value, meta};

/// The group of all reviews.
pub const GROUP: &str = "authorization.k8s.io";

/// Answers a POST of a SubjectAccessReview.
pub async fn subject_access_review(authorizer: &dyn Authorizer, body: Value) -> Result<Value> {
    let spec = body.get("spec").unwrap_or(&Value::Null);
    let mut errors = check_attributes(spec);
    errors.extend(check_subject(spec));
    refuse("SubjectAccessReview", &errors)?;
    let user = subject(spec);
    answer(authorizer, user, body).await
}

/// Answers a POST of a SelfSubjectAccessReview.
pub async fn self_subject_access_review(
    authorizer: &dyn Authorizer,
    user: &Arc<User>,
    body: Value,
) -> Result<Value> {
    let errors = check_attributes(body.get("spec").unwrap_or(&Value::Null));
    refuse("SelfSubjectAccessReview", &errors)?;
    answer(authorizer, user.clone(), body).await
}

/// Answers a POST of a LocalSubjectAccessReview.
pub async fn local_subject_access_review(
    authorizer: &dyn Authorizer,
    namespace: &str,
    body: Value,
) -> Result<Value> {
    let spec = body.get("spec").unwrap_or(&Value::Null);
    let asked = meta::text(spec, &["resourceAttributes", "namespace"]);
    if asked != namespace {
        return Err(Status::bad_request(format!(
            "spec.resourceAttributes.namespace must match namespace: {namespace}"
        )));
    }
    let mut errors = check_attributes(spec);
    errors.extend(check_subject(spec));
    if is_given(spec, "nonResourceAttributes") {
        let value = spec["nonResourceAttributes"].clone();
        let detail = "disallowed on this kind of request";
        errors.push(FieldError::invalid("spec.nonResourceAttributes", value, detail));
    }
    refuse("LocalSubjectAccessReview", &errors)?;
    let user = subject(spec);
    answer(authorizer, user, body).await
}

/// Answers a POST of a SelfSubjectRulesReview.
pub fn self_subject_rules_review(
    authorization: &Authorization,
    user: &User,
    body: Value,
) -> Result<Value> {
    let namespace = meta::text(&body, &["spec", "namespace"]).to_owned();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (rules, mut errors) = authorization.rbac().rules_for(user, &namespace);
    let is_node = node_of(user).is_some();
    if is_node {
        errors.insert(0, "node authorizer does not support user rule resolution".to_owned());
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in rules {
        if !rule.resources.is_empty() {
            let mut one = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups,
                "resources": rule.resources});
            if !rule.resource_names.is_empty() {
                one["resourceNames"] = json!(rule.resource_names);
            }
            resources.push(one);
        }
        if !rule.non_resource_urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    let mut body = body;
    let incomplete = is_node || !errors.is_empty();
    body["status"] =
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete});
    if !errors.is_empty() {
        body["status"]["evaluationError"] = json!(errors.join(", "));
    }
    Ok(body)
}

fn refuse(kind: &str, errors: &[FieldError]) -> Result<()> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(GROUP, kind, "", errors)) }
}

fn is_given(spec: &Value, field: &str) -> bool {
    spec.get(field).is_some_and(|value| !value.is_null())
}

fn check_attributes(spec: &Value) -> Vec<FieldError> {
    let error =
        match (is_given(spec, "resourceAttributes"), is_given(spec, "nonResourceAttributes")) {
            (true, true) => Some(FieldError::invalid(
                "spec.nonResourceAttributes",
                spec["nonResourceAttributes"].clone(),
                "cannot be specified in combination with resourceAttributes",
            )),
            (false, false) => Some(FieldError::invalid(
                "spec.resourceAttributes",
                Value::Null,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )),
            _ => None,
        };
    error.into_iter().collect()
}

fn check_subject(spec: &Value) -> Option<FieldError> {
    let has_groups =
        spec.get("groups").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let nobody = meta::text(spec, &["user"]).is_empty() && !has_groups;
    nobody.then(|| {
        FieldError::invalid("spec.user", "", "at least one of user or group must be specified")
    })
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn subject(spec: &Value) -> Arc<User> {
    let extra = spec.get("extra").and_then(Value::as_object).into_iter().flatten();
    Arc::new(User {
        name: meta::text(spec, &["user"]).to_owned(),
        uid: meta::text(spec, &["uid"]).to_owned(),
        groups: texts(spec.get("groups")),
        extra: extra.map(|(key, values)| (key.clone(), texts(Some(values)))).collect(),
    })
}

/// A field selector's text, from its raw form or from requirements of one value each.
fn field_selector(attributes: &Value) -> std::result::Result<String, ()> {
    let Some(selector) = attributes.get("fieldSelector").filter(|value| !value.is_null()) else {
        return Ok(String::new());
    };
    let raw = meta::text(selector, &["rawSelector"]);
    if !raw.is_empty() {
        crate::object::selector::parse_fields(raw).map_err(|_| ())?;
        return Ok(raw.to_owned());
    }
    let requirements = selector.get("requirements").and_then(Value::as_array);
    let parts: std::result::Result<Vec<String>, ()> = requirements
        .into_iter()
        .flatten()
        .map(|requirement| {
            let sign = match meta::text(requirement, &["operator"]) {
                "In" => "=",
                "NotIn" => "!=",
                _ => return Err(()),
            };
            match texts(requirement.get("values")).as_slice() {
                [value] => Ok(format!("{}{sign}{value}", meta::text(requirement, &["key"]))),
                _ => Err(()),
            }
        })
        .collect();
    Ok(parts?.join(","))
}

fn attributes(user: Arc<User>, spec: &Value) -> (Attributes, Option<String>) {
    let text = |field: &str| meta::text(spec, &["resourceAttributes", field]).to_owned();
    let mut error = None;
    let mut what = Attributes {
        user,
        verb: meta::text(spec, &["nonResourceAttributes", "verb"]).to_owned(),
        gvr: None,
        subresource: String::new(),
        namespace: String::new(),
        name: String::new(),
        path: meta::text(spec, &["nonResourceAttributes", "path"]).to_owned(),
        field_selector: String::new(),
        label_selector: String::new(),
    };
    if is_given(spec, "resourceAttributes") {
        let version = match text("version").as_str() {
            "" => "*".to_owned(),
            version => version.to_owned(),
        };
        what.gvr = Some(Gvr::new(text("group"), version, text("resource")));
        what.verb = text("verb");
        what.subresource = text("subresource");
        what.namespace = text("namespace");
        what.name = text("name");
        match field_selector(&spec["resourceAttributes"]) {
            Ok(selector) => what.field_selector = selector,
            Err(()) => {
                let text = "spec.resourceAttributes.fieldSelector ignored due to parse error";
                error = Some(text.to_owned());
            }
        }
    }
    (what, error)
}

async fn answer(authorizer: &dyn Authorizer, user: Arc<User>, mut body: Value) -> Result<Value> {
    let (what, error) = attributes(user, body.get("spec").unwrap_or(&Value::Null));
    let mut status = match authorizer.authorize(&what).await {
        Decision::Allow(reason) => json!({"allowed": true, "reason": reason}),
        Decision::Deny(reason) => json!({"allowed": false, "denied": true, "reason": reason}),
        Decision::NoOpinion(reason) => json!({"allowed": false, "reason": reason}),
    };
    if meta::text(&status, &["reason"]).is_empty() {
        meta::remove(&mut status, &["reason"]);
    }
    if let Some(error) = error {
        status["evaluationError"] = json!(error);
    }
    body["status"] = status;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::authz::tests::user;
    use crate::api::objects::{MemoryObjects, SharedObjects};
    use crate::stdx::tasks::Tasks;

    fn authorization(tasks: &Tasks) -> Authorization {
        let group = crate::api::authz::rbac::index::GROUP;
        let objects: SharedObjects = Arc::new(MemoryObjects::with([
            (
                "clusterroles",
                group,
                json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""],
                    "resources": ["pods"], "verbs": ["get"]}]}),
            ),
            (
                "clusterrolebindings",
                group,
                json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
                    "subjects": [{"kind": "User", "name": "ada"}]}),
            ),
        ]));
        Authorization::start(&objects, Vec::new(), tasks)
    }

    #[tokio::test]
    async fn reviews_answer_for_the_named_and_for_the_asking() {
        let tasks = Tasks::new();
        let all = authorization(&tasks);
        let attributes = json!({"verb": "get", "resource": "pods", "namespace": "ns"});
        let spec = json!({"user": "ada", "resourceAttributes": attributes});
        let body = json!({"spec": spec});
        let review = subject_access_review(&all, body.clone()).await.unwrap();
        assert_eq!(review["status"]["allowed"], true);
        assert_eq!(
            review["status"]["reason"],
            "RBAC: allowed by ClusterRoleBinding \"b\" of ClusterRole \"r\" to User \"ada\""
        );
        let eve = Arc::new(user("eve", &[]));
        let review = self_subject_access_review(&all, &eve, body.clone()).await.unwrap();
        assert_eq!(review["status"], json!({"allowed": false}));
        assert!(local_subject_access_review(&all, "ns", body.clone()).await.is_ok());
        assert_eq!(local_subject_access_review(&all, "other", body).await.unwrap_err().code, 400);
        let empty = subject_access_review(&all, json!({"spec": {}})).await.unwrap_err();
        assert!(empty.message.contains("exactly one of nonResourceAttributes"), "{empty}");
        assert!(empty.message.contains("at least one of user or group"), "{empty}");
        let ada = user("ada", &[]);
        let rules =
            self_subject_rules_review(&all, &ada, json!({"spec": {"namespace": "ns"}})).unwrap();
        assert_eq!(rules["status"]["resourceRules"][0]["resources"][0], "pods");
        assert_eq!(rules["status"]["incomplete"], false);
        tasks.shutdown().await;
    }
}
