//! Which objects belong to a controller: adopts matching orphans, lets go of those that no longer
//! match.
//!
//! Why patches carry the revision: a merge replaces the whole list of owners, so it must be the list
//! that was read (upstream's `controller_ref_manager.go` merges by uid instead).

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use serde_json::json;

use crate::object::selector::Selector;
use crate::object::status::Result;
use crate::object::{Status, Value, meta};
use crate::reconcile::change::Pass;
use crate::reconcile::{Change, Object};

/// What should happen to one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Mine,
    NotMine,
    Adopt,
    Release,
}

fn decide<C: Object, T: Object>(owner: &C, selector: &Selector, object: &T) -> Claim {
    let matches = selector.matches_labels(object.metadata().labels.as_ref());
    match object.controller() {
        Some(controller) if controller.uid != owner.uid() => Claim::NotMine,
        Some(_) if matches => Claim::Mine,
        Some(_) if owner.is_deleting() => Claim::NotMine,
        Some(_) => Claim::Release,
        None if matches && !owner.is_deleting() && !object.is_deleting() => Claim::Adopt,
        None => Claim::NotMine,
    }
}

/// The objects among `objects` (of the owner's namespace) that are the owner's, after adopting and
/// releasing. `finalizer` is put on adopted objects and taken from released ones.
pub async fn claim<C: Object, T: Object>(
    pass: &Pass,
    owner: &C,
    selector: &Selector,
    objects: Vec<Arc<T>>,
    finalizer: Option<&str>,
) -> Result<Vec<Arc<T>>> {
    let mut mine = Vec::new();
    let mut checked = false;
    for object in objects {
        match decide(owner, selector, &*object) {
            Claim::Mine => mine.push(object),
            Claim::NotMine => {}
            Claim::Adopt => {
                if !checked {
                    check_alive(pass, owner).await?;
                    checked = true;
                }
                if let Some(adopted) = adopt(pass, owner, &*object, finalizer).await? {
                    mine.push(adopted);
                }
            }
            Claim::Release => release(pass, owner, &*object, finalizer).await?,
        }
    }
    Ok(mine)
}

/// Before the first adoption: the owner may have been deleted since it was cached.
async fn check_alive<C: Object>(pass: &Pass, owner: &C) -> Result<()> {
    let fresh = pass.client().get(&owner.target()).await?;
    let key = owner.key();
    if meta::uid(&fresh) != owner.uid() {
        return Err(Status::internal(format!("original {} {key} is gone", C::KIND)));
    }
    if meta::is_deleting(&fresh) {
        return Err(Status::internal(format!("{key} has just been deleted")));
    }
    Ok(())
}

async fn adopt<C: Object, T: Object>(
    pass: &Pass,
    owner: &C,
    object: &T,
    finalizer: Option<&str>,
) -> Result<Option<Arc<T>>> {
    let mut owners: Vec<OwnerReference> =
        object.metadata().owner_references.clone().unwrap_or_default();
    owners.retain(|reference| reference.uid != owner.uid());
    owners.push(owner.owner_reference());
    let mut metadata = json!({"ownerReferences": owners});
    if let Some(finalizer) = finalizer {
        metadata["finalizers"] = with_finalizer(object, finalizer, true);
    }
    match pass.apply(Change::merge_exact(object, json!({"metadata": metadata}))).await {
        Ok(adopted) => {
            T::from_value(adopted).map(|it| Some(Arc::new(it))).map_err(Status::internal)
        }
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}

async fn release<C: Object, T: Object>(
    pass: &Pass,
    owner: &C,
    object: &T,
    finalizer: Option<&str>,
) -> Result<()> {
    let mut owners: Vec<OwnerReference> =
        object.metadata().owner_references.clone().unwrap_or_default();
    owners.retain(|reference| reference.uid != owner.uid());
    let owners = if owners.is_empty() { Value::Null } else { json!(owners) };
    let mut metadata = json!({"ownerReferences": owners});
    if let Some(finalizer) = finalizer {
        metadata["finalizers"] = with_finalizer(object, finalizer, false);
    }
    match pass.apply(Change::merge_exact(object, json!({"metadata": metadata}))).await {
        Err(status) if !status.is_not_found() && status.code != 422 => Err(status),
        _ => Ok(()),
    }
}

/// An object's finalizers with, or without, one of them, as a merge patch wants it.
pub fn with_finalizer<T: Object>(object: &T, finalizer: &str, present: bool) -> Value {
    let mut finalizers = object.metadata().finalizers.clone().unwrap_or_default();
    finalizers.retain(|name| name != finalizer);
    if present {
        finalizers.push(finalizer.to_owned());
    }
    if finalizers.is_empty() { Value::Null } else { json!(finalizers) }
}

/// A typed selector as one that matches. Invalid ones, which validation keeps out, match nothing.
pub fn selector_of(selector: &LabelSelector) -> Selector {
    let value = serde_json::to_value(selector).unwrap_or_default();
    Selector::from_label_selector(&value).unwrap_or_else(|_| Selector::nothing())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::Pod;

    fn pod(labels: Value, owner: Option<&str>) -> Pod {
        let owners: Vec<Value> = owner
            .iter()
            .map(|uid| {
                json!({"uid": uid, "controller": true, "kind": "ReplicaSet",
                "apiVersion": "apps/v1", "name": "x"})
            })
            .collect();
        let pod = json!({"metadata": {"name": "p", "labels": labels, "ownerReferences": owners}});
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn ownership_follows_the_selector_and_spares_what_others_own() {
        let mut set = ReplicaSet::default();
        set.metadata.uid = Some("me".to_owned());
        let selector = Selector::parse("a=b").unwrap();
        let cases = [
            (json!({"a": "b"}), Some("me"), Claim::Mine),
            (json!({"a": "c"}), Some("me"), Claim::Release),
            (json!({"a": "b"}), Some("other"), Claim::NotMine),
            (json!({"a": "b"}), None, Claim::Adopt),
            (json!({}), None, Claim::NotMine),
        ];
        for (labels, owner, expected) in cases {
            assert_eq!(decide(&set, &selector, &pod(labels.clone(), owner)), expected, "{labels}");
        }
        set.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(decide(&set, &selector, &pod(json!({"a": "b"}), None)), Claim::NotMine);
        assert_eq!(decide(&set, &selector, &pod(json!({}), Some("me"))), Claim::NotMine);
    }
}
