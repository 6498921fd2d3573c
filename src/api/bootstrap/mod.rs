//! What every cluster starts with: namespaces, default roles and bindings, priority classes, flow
//! control's mandatory objects, the service range, the authorities that extension servers trust.
//!
//! Why through a [`Client`]: the objects pass defaults, validation and admission like anyone's.
//! It runs at each start and converges: what is missing is made, what default roles lack is
//! added, and what an operator has marked as his (`autoupdate: "false"`) is left alone.

mod table;

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

pub use self::table::{rbac_objects, rules_of_default};
use crate::api::authz::rbac::rule::{missing, rules_of};
use crate::client::{Client, DeleteOptions, ListOptions, PatchKind, Target, User, WriteOptions};
use crate::object::schema::decode::yaml_documents;
use crate::object::status::Result;
use crate::object::{Gvr, Status, Value, meta};

const OBJECTS: &str = include_str!("../../../embedded/bootstrap/objects.yaml");
/// Objects that are written at the same time; they share the store's commits.
const CONCURRENT_WRITES_MAX: usize = 32;
/// Optimistic attempts at one object before the start fails.
const ATTEMPTS_MAX: usize = 5;
/// Who writes, for managedFields.
const FIELD_MANAGER: &str = "kube-apiserver";

/// The API server itself, as a user.
pub fn apiserver_user() -> User {
    User {
        name: "system:apiserver".to_owned(),
        groups: vec![crate::api::authn::MASTERS.to_owned()],
        ..User::default()
    }
}

/// What the objects depend on.
#[derive(Clone, Debug)]
pub struct Options {
    /// The service range, as in "10.43.0.0/16".
    pub service_cidr: String,
    /// The cluster's CA, in PEM.
    pub ca_pem: String,
    /// The front proxies' CA, in PEM.
    pub front_proxy_ca_pem: String,
}

/// (kind, resource) of what is bootstrapped.
const KINDS: [(&str, &str); 10] = [
    ("Namespace", "namespaces"),
    ("PriorityClass", "priorityclasses"),
    ("PriorityLevelConfiguration", "prioritylevelconfigurations"),
    ("FlowSchema", "flowschemas"),
    ("ClusterRole", "clusterroles"),
    ("Role", "roles"),
    ("ClusterRoleBinding", "clusterrolebindings"),
    ("RoleBinding", "rolebindings"),
    ("ServiceCIDR", "servicecidrs"),
    ("ConfigMap", "configmaps"),
];

/// All objects, namespaces first.
pub fn objects(options: &Options) -> Result<Vec<Value>> {
    let mut objects = yaml_documents(OBJECTS.as_bytes()).map_err(Status::internal)?;
    objects.extend(rbac_objects().map_err(Status::internal)?);
    objects.push(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [options.service_cidr]},
    }));
    let list = |names: &[&str]| json!(names).to_string();
    objects.push(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": options.ca_pem,
            "requestheader-allowed-names": list(&["front-proxy-client"]),
            "requestheader-client-ca-file": options.front_proxy_ca_pem,
            "requestheader-extra-headers-prefix": list(&["X-Remote-Extra-"]),
            "requestheader-group-headers": list(&["X-Remote-Group"]),
            "requestheader-username-headers": list(&["X-Remote-User"]),
        },
    }));
    Ok(objects)
}

/// Makes what is missing and mends what is short; `client` speaks as [`apiserver_user`].
pub async fn run(client: &dyn Client, options: &Options) -> Result<()> {
    let wanted = objects(options)?;
    let (namespaces, rest): (Vec<Value>, Vec<Value>) =
        wanted.into_iter().partition(|object| object["kind"] == "Namespace");
    for batch in [namespaces, rest] {
        let present = present(client, &batch).await?;
        stream::iter(batch.into_iter().map(Ok::<_, Status>))
            .try_for_each_concurrent(CONCURRENT_WRITES_MAX, |object| {
                let old = present.get(&identity(&object)).cloned();
                async move { ensure(client, object, old).await }
            })
            .await?;
    }
    Ok(())
}

type Identity = (String, String, String);

fn identity(object: &Value) -> Identity {
    let text = |path: &[&str]| meta::text(object, path).to_owned();
    (text(&["kind"]), text(&["metadata", "namespace"]), text(&["metadata", "name"]))
}

fn gvr(object: &Value) -> Result<Gvr> {
    let gvk = meta::gvk(object).ok_or_else(|| Status::internal("an object without a kind"))?;
    let (_, resource) = KINDS
        .into_iter()
        .find(|(kind, _)| *kind == gvk.kind)
        .ok_or_else(|| Status::internal(format!("{} is not bootstrapped", gvk.kind)))?;
    Ok(Gvr::new(gvk.group, gvk.version, resource))
}

/// What exists of the resources that the batch names.
async fn present(client: &dyn Client, batch: &[Value]) -> Result<HashMap<Identity, Value>> {
    let mut resources: Vec<(Gvr, String)> = Vec::new();
    for object in batch {
        // Of the config maps only one namespace's are of interest.
        let namespace = match object["kind"].as_str() {
            Some("ConfigMap") => meta::namespace(object).to_owned(),
            _ => String::new(),
        };
        let resource = (gvr(object)?, namespace);
        if !resources.contains(&resource) {
            resources.push(resource);
        }
    }
    let lists = stream::iter(resources).map(|(gvr, namespace)| async move {
        let target = Target::all(&gvr, &namespace);
        client.list(&target, &ListOptions::default()).await
    });
    let lists: Vec<_> = lists.buffered(CONCURRENT_WRITES_MAX).try_collect().await?;
    let mut present = HashMap::new();
    for item in lists.iter().flat_map(|list| &list.items) {
        let object: Value = serde_json::from_slice(item).map_err(Status::internal)?;
        present.insert(identity(&object), object);
    }
    Ok(present)
}

fn options() -> WriteOptions {
    WriteOptions { field_manager: FIELD_MANAGER.to_owned(), ..WriteOptions::default() }
}

/// Makes one object, or mends the one there is.
async fn ensure(client: &dyn Client, wanted: Value, mut old: Option<Value>) -> Result<()> {
    let gvr = gvr(&wanted)?;
    let (namespace, name) = (meta::namespace(&wanted), meta::name(&wanted));
    let target = Target::object(&gvr, namespace, name);
    for _ in 0..ATTEMPTS_MAX {
        let result = match &old {
            None => {
                let collection = Target::all(&gvr, namespace);
                client.create(&collection, wanted.clone(), &options()).await
            }
            Some(old) => match mend(&wanted, old) {
                Mend::Nothing => return after(client, &target, old).await,
                Mend::Replace(object) => client.update(&target, object, &options()).await,
                Mend::Recreate => {
                    let delete = DeleteOptions {
                        uid: Some(meta::uid(old).to_owned()),
                        ..DeleteOptions::default()
                    };
                    match client.delete(&target, &delete).await {
                        Ok(_) => Err(Status::not_found(&gvr, name)),
                        Err(status) => Err(status),
                    }
                }
            },
        };
        match result {
            Ok(object) => return after(client, &target, &object).await,
            Err(status) if status.is_already_exists() || status.is_conflict() => {
                old = Some(client.get(&target).await?);
            }
            Err(status) if status.is_not_found() && old.is_some() => old = None,
            Err(status) => return Err(status),
        }
    }
    Err(Status::internal(format!("{} {name} keeps changing", gvr.resource)))
}

/// What upstream's controllers say of the default service range.
async fn after(client: &dyn Client, target: &Target, object: &Value) -> Result<()> {
    if target.gvr.resource != "servicecidrs" {
        return Ok(());
    }
    let conditions = meta::at(object, &["status", "conditions"]).and_then(Value::as_array);
    if conditions.is_some_and(|list| list.iter().any(|one| one["type"] == "Ready")) {
        return Ok(());
    }
    let created = meta::text(object, &["metadata", "creationTimestamp"]);
    let ready = json!({"type": "Ready", "status": "True", "reason": "",
        "message": "Kubernetes Service CIDR is ready", "lastTransitionTime": created});
    let patch = json!({"status": {"conditions": [ready]}});
    client.patch(&target.clone().sub("status"), PatchKind::Merge, patch, &options()).await?;
    Ok(())
}

/// What has to be done to an object that is there.
#[derive(Debug, PartialEq)]
enum Mend {
    Nothing,
    Replace(Value),
    Recreate,
}

fn mend(wanted: &Value, old: &Value) -> Mend {
    let mut new = old.clone();
    match wanted["kind"].as_str().unwrap_or("") {
        "ClusterRole" | "Role" => {
            if is_kept(old) {
                return Mend::Nothing;
            }
            mend_role(wanted, &mut new);
        }
        "ClusterRoleBinding" | "RoleBinding" => {
            if is_kept(old) {
                return Mend::Nothing;
            }
            let role = |object: &Value| {
                let text = |field: &str| meta::text(object, &["roleRef", field]).to_owned();
                (text("kind"), text("name"))
            };
            if role(wanted) != role(old) {
                return Mend::Recreate;
            }
            add_missing(wanted, &mut new, &["subjects"]);
        }
        "ConfigMap" => meta::set(&mut new, &["data"], wanted["data"].clone()),
        _ => return Mend::Nothing,
    }
    for field in ["labels", "annotations"] {
        let path = ["metadata", field];
        for (key, value) in meta::at(wanted, &path).and_then(Value::as_object).into_iter().flatten()
        {
            let full = ["metadata", field, key];
            if meta::at(&new, &full).is_none() {
                meta::set(&mut new, &full, value.clone());
            }
        }
    }
    if new == *old { Mend::Nothing } else { Mend::Replace(new) }
}

/// Whether an operator said that he looks after the object himself.
fn is_kept(old: &Value) -> bool {
    meta::text(old, &["metadata", "annotations", table::AUTOUPDATE]) == "false"
}

fn mend_role(wanted: &Value, new: &mut Value) {
    if wanted.get("aggregationRule").is_some() {
        // The rules are the aggregation loop's.
        add_missing(wanted, new, &["aggregationRule", "clusterRoleSelectors"]);
        return;
    }
    let mut rules = rules_of(new);
    let short = missing(&rules, &rules_of(wanted));
    if !short.is_empty() {
        rules.extend(short);
        new["rules"] = json!(rules);
    }
}

/// Appends what the list at `path` lacks.
fn add_missing(wanted: &Value, new: &mut Value, path: &[&str]) {
    let list = |object: &Value| -> Vec<Value> {
        meta::at(object, path).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let mut all = list(new);
    let before = all.len();
    for item in list(wanted) {
        if !all.contains(&item) {
            all.push(item);
        }
    }
    if all.len() > before {
        meta::set(new, path, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            service_cidr: "10.43.0.0/16".to_owned(),
            ca_pem: "CA".to_owned(),
            front_proxy_ca_pem: "FRONT".to_owned(),
        }
    }

    #[test]
    fn every_object_has_a_resource_and_a_name_of_its_own() {
        let objects = objects(&options()).unwrap();
        let mut seen = std::collections::HashSet::new();
        for object in &objects {
            gvr(object).unwrap();
            assert!(seen.insert(identity(object)), "{object}");
        }
        let names: Vec<&str> =
            objects.iter().filter(|object| object["kind"] == "Namespace").map(meta::name).collect();
        assert_eq!(names, ["kube-system", "kube-public", "kube-node-lease", "default"]);
    }

    #[test]
    fn default_roles_are_widened_never_narrowed_and_left_alone_on_request() {
        let rule =
            |verbs: Value| json!([{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]);
        let role = |rules: Value, auto: &str| {
            json!({"kind": "ClusterRole", "rules": rules, "metadata":
                {"name": "r", "annotations": {table::AUTOUPDATE: auto}}})
        };
        let wanted = role(rule(json!(["get", "list"])), "true");
        let wide = role(rule(json!(["get", "list", "delete"])), "true");
        assert_eq!(mend(&wanted, &wide), Mend::Nothing);
        let narrow = role(rule(json!(["get"])), "true");
        let Mend::Replace(new) = mend(&wanted, &narrow) else { panic!("not mended") };
        assert_eq!(new["rules"][1]["verbs"], json!(["list"]));
        let kept = role(rule(json!(["get"])), "false");
        assert_eq!(mend(&wanted, &kept), Mend::Nothing);
    }

    #[test]
    fn default_bindings_get_their_subjects_back_and_are_made_anew_for_another_role() {
        let binding = |role: &str, subjects: Value| {
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "b"},
                "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects})
        };
        let ours = json!({"kind": "Group", "name": "ours"});
        let theirs = json!({"kind": "User", "name": "theirs"});
        let wanted = binding("r", json!([ours]));
        let Mend::Replace(new) = mend(&wanted, &binding("r", json!([theirs]))) else {
            panic!("not mended")
        };
        assert_eq!(new["subjects"], json!([theirs, ours]));
        assert_eq!(mend(&wanted, &binding("other", json!([ours]))), Mend::Recreate);
    }
}
