//! The steps that make an object ready to be stored: defaults, system fields, what a subresource
//! may write, generation, deletion.
//!
//! Why pure functions of old and new: they are the rules that clients trip over, and tests can call
//! them without a store.

use crate::api::kind::Kind;
use crate::api::server::Call;
use crate::object::status::{Result, Status};
use crate::object::{Map, Value, meta, schema, time};
use crate::stdx::ids;

/// Fills in the schema table's defaults and the strategy's.
pub fn defaults(call: &Call, object: &mut Value) {
    if let Some(root) = schema::builtin().root(&call.kind.gvk) {
        root.default(object);
    }
    call.kind.strategy.default(object);
}

/// Drops what clients may not set on a new object.
pub fn wipe_system_fields(object: &mut Value) {
    let fields = ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];
    for field in fields.into_iter().chain(["uid", "selfLink"]) {
        meta::remove(object, &["metadata", field]);
    }
}

/// Gives a new object its uid and birthday.
pub fn system_fields(call: &Call, object: &mut Value) {
    meta::set(object, &["metadata", "uid"], ids::uid());
    let now = time::seconds(call.api.clock.now());
    meta::set(object, &["metadata", "creationTimestamp"], now);
    meta::remove(object, &["metadata", "resourceVersion"]);
}

/// Checks that name and namespace are those of the URL, and fills the namespace in.
pub fn place(call: &Call, object: &mut Value) -> Result<()> {
    let (kind, at) = (&call.kind, &call.attributes);
    if meta::at(object, &["metadata"]).is_none_or(|metadata| !metadata.is_object()) {
        meta::set(object, &["metadata"], Map::new());
    }
    let wanted = if kind.namespaced { at.namespace.as_str() } else { "" };
    let given = meta::namespace(object);
    if kind.namespaced && !given.is_empty() && given != wanted {
        let text = if at.verb == "create" {
            "the namespace of the provided object does not match the namespace sent on the request"
                .to_owned()
        } else {
            format!(
                "the namespace of the object ({given}) does not match the namespace on the request \
                 ({wanted})"
            )
        };
        return Err(Status::bad_request(text));
    }
    if wanted.is_empty() {
        meta::remove(object, &["metadata", "namespace"]);
    } else {
        meta::set(object, &["metadata", "namespace"], wanted);
    }
    if at.name.is_empty() {
        return Ok(());
    }
    let name = meta::name(object);
    if name.is_empty() && at.verb == "update" {
        return Err(Status::bad_request(
            "name must be provided as it is part of the resource's URL: resource name may not be \
             empty",
        ));
    }
    if name.is_empty() {
        meta::set(object, &["metadata", "name"], at.name.as_str());
    } else if name != at.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            at.name
        )));
    }
    Ok(())
}

/// Puts back what this subresource may not write.
pub fn carry_over(call: &Call, new: &mut Value, old: &Value) {
    keep_unwritable(&call.kind, &call.attributes.subresource, new, old);
    let fields = ["uid", "creationTimestamp", "deletionTimestamp", "generation"];
    for field in fields.into_iter().chain(["deletionGracePeriodSeconds"]) {
        put_back(new, old, &["metadata", field]);
    }
    meta::remove(new, &["metadata", "selfLink"]);
}

fn keep_unwritable(kind: &Kind, subresource: &str, new: &mut Value, old: &Value) {
    match subresource {
        "" | "scale" if kind.has_status() && kind.strategy.splits_status() => {
            put_back(new, old, &["status"]);
        }
        "status" => {
            let written = [new.get("status").cloned(), new.get("metadata").cloned()];
            new.clone_from(old);
            let [status, metadata] = written;
            replace(new, "status", status);
            replace(new, "metadata", metadata);
        }
        "finalize" => {
            let written = meta::at(new, &["spec", "finalizers"]).cloned();
            let metadata = new.get("metadata").cloned();
            new.clone_from(old);
            replace(new, "metadata", metadata);
            match written {
                Some(list) => meta::set(new, &["spec", "finalizers"], list),
                None => drop(meta::remove(new, &["spec", "finalizers"])),
            }
        }
        "approval" => {
            let metadata = new.get("metadata").cloned();
            let conditions = meta::at(new, &["status", "conditions"]).cloned();
            new.clone_from(old);
            replace(new, "metadata", metadata);
            if let Some(conditions) = conditions {
                meta::set(new, &["status", "conditions"], conditions);
            }
        }
        "ephemeralcontainers" => {
            let written = meta::at(new, &["spec", "ephemeralContainers"]).cloned();
            new.clone_from(old);
            if let Some(list) = written {
                meta::set(new, &["spec", "ephemeralContainers"], list);
            }
        }
        "resize" => resize(new, old),
        _ => {}
    }
}

/// Of a resize only the containers' resources and resize policies are taken.
fn resize(new: &mut Value, old: &Value) {
    let wanted = std::mem::replace(new, old.clone());
    for list in ["containers", "initContainers"] {
        let by_name = |container: &Value| meta::text(container, &["name"]).to_owned();
        let asked = meta::at(&wanted, &["spec", list]).and_then(Value::as_array);
        let Some(have) = meta::at_mut(new, &["spec"]).and_then(|spec| spec.get_mut(list)) else {
            continue;
        };
        for container in have.as_array_mut().into_iter().flatten() {
            let name = by_name(container);
            let asked = asked.into_iter().flatten().find(|one| by_name(one) == name);
            for field in ["resources", "resizePolicy"] {
                if let Some(asked) = asked.and_then(|asked| asked.get(field)) {
                    container[field] = asked.clone();
                }
            }
        }
    }
}

fn replace(object: &mut Value, field: &str, with: Option<Value>) {
    let Some(map) = object.as_object_mut() else { return };
    match with {
        Some(value) => drop(map.insert(field.to_owned(), value)),
        None => drop(map.remove(field)),
    }
}

fn put_back(new: &mut Value, old: &Value, path: &[&str]) {
    match meta::at(old, path) {
        Some(value) => meta::set(new, path, value.clone()),
        None => drop(meta::remove(new, path)),
    }
}

/// The strategy's part of an update, and the generation.
pub fn update(call: &Call, new: &mut Value, old: &Value) {
    carry_over(call, new, old);
    let (kind, write) = (&call.kind, call.write());
    if call.attributes.subresource == "status" {
        kind.strategy.prepare_status(&write, new, old);
        return;
    }
    kind.strategy.prepare_update(&write, new, old);
    if kind.strategy.counts_generation() && differs(new, old) {
        let generation = meta::generation(old) + 1;
        meta::set(new, &["metadata", "generation"], generation);
    }
}

/// Whether anything but metadata and status changed.
fn differs(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return true };
    let counted = |name: &&String| !matches!(name.as_str(), "metadata" | "status");
    new.keys().chain(old.keys()).filter(counted).any(|name| new.get(name) != old.get(name))
}

/// When only the times in managedFields differ, the old ones stay: the write changes nothing.
pub fn keep_times_of_unchanged(new: &mut Value, old: &Value) {
    const PATH: [&str; 2] = ["metadata", "managedFields"];
    let (Some(after), Some(before)) = (meta::at(new, &PATH), meta::at(old, &PATH)) else { return };
    if after == before || !same_but_times(after, before) {
        return;
    }
    let before = before.clone();
    let after = std::mem::take(&mut new["metadata"]["managedFields"]);
    new["metadata"]["managedFields"] = before;
    if new != old {
        new["metadata"]["managedFields"] = after;
    }
}

fn same_but_times(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_array(), b.as_array()) else { return false };
    let fields = ["manager", "operation", "apiVersion", "subresource", "fieldsType", "fieldsV1"];
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| fields.iter().all(|field| a.get(field) == b.get(field)))
}

/// Whether this update takes the last thing away that a deleted object waited for.
pub fn vanishes(call: &Call, new: &Value, old: &Value) -> bool {
    let grace = meta::at(old, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    meta::is_deleting(old)
        && meta::finalizers(new).is_empty()
        && grace.unwrap_or(0) == 0
        && call.kind.strategy.may_vanish(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_counts_moves_the_generation() {
        let old = json!({"metadata": {"a": 1}, "spec": {"x": 1}, "status": {"y": 1}});
        let mut new = old.clone();
        new["metadata"]["a"] = json!(2);
        new["status"]["y"] = json!(2);
        assert!(!differs(&new, &old));
        new["spec"]["x"] = json!(2);
        assert!(differs(&new, &old));
    }

    #[test]
    fn a_write_that_only_moves_times_is_none() {
        let entry = |time: &str| json!([{"manager": "m", "operation": "Update", "time": time}]);
        let old = json!({"metadata": {"managedFields": entry("1")}, "spec": 1});
        let mut new = json!({"metadata": {"managedFields": entry("2")}, "spec": 1});
        keep_times_of_unchanged(&mut new, &old);
        assert_eq!(new, old);
        let mut new = json!({"metadata": {"managedFields": entry("2")}, "spec": 2});
        keep_times_of_unchanged(&mut new, &old);
        assert_eq!(new["metadata"]["managedFields"], entry("2"));
    }

    #[test]
    fn a_resize_takes_resources_only() {
        let pod = |image: &str, cpu: &str| {
            json!({"spec": {"containers": [{"name": "a", "image": image,
                "resources": {"limits": {"cpu": cpu}}}]}})
        };
        let mut new = pod("new", "2");
        resize(&mut new, &pod("old", "1"));
        assert_eq!(new, pod("old", "2"));
    }
}
