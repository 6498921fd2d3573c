//! Strategic merge patch: a merge patch that knows how lists merge.
//!
//! Why the table: `patchMergeKey` and `patchStrategy` are facts of each field. Directives are
//! upstream's: `$patch` (replace, delete), `$retainKeys`, `$setElementOrder/<list>` and
//! `$deleteFromPrimitiveList/<list>`; kubectl's apply and edit write them all.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{go_print, unprocessable};
use crate::object::schema::{Root, Schemas, Strategy, Type};
use crate::object::{Map, Status, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

const BAD_DELETE: &str = "invalid patch format of primitive list";
const BAD_RETAIN: &str = "invalid patch format of retainKeys";
const BAD_ORDER: &str = "invalid patch format of setElementOrder list";

/// Applies a strategic merge patch to an object of the root's type.
pub fn apply(root: Root, current: &Value, patch: &Value) -> Result<Value, Status> {
    let Value::Object(patch) = patch else {
        return Err(Status::bad_request("invalid JSON document"));
    };
    let current = current.as_object().cloned().unwrap_or_default();
    let merge = Merge { schemas: root.schemas };
    merge.map(current, patch.clone(), Shape::Typed(&Type::Struct(root.id))).map(Value::Object)
}

/// What is known of the map at hand.
#[derive(Clone, Copy)]
enum Shape<'s> {
    Typed(&'s Type),
    Unknown,
}

struct Merge<'s> {
    schemas: &'s Schemas,
}

static NO_STRATEGY: Strategy = Strategy {
    merge: false,
    retain_keys: false,
    replace: false,
    key: std::borrow::Cow::Borrowed(""),
};

impl<'s> Merge<'s> {
    /// Type and strategy of a field of the map at hand.
    fn field(&self, shape: Shape<'s>, name: &str) -> (Shape<'s>, &'s Strategy) {
        match shape {
            Shape::Typed(Type::Struct(id) | Type::SchemaOr(_, id)) => {
                match self.schemas.get(*id).field(name) {
                    Some(field) => {
                        let strategy = field.strategy.as_deref().unwrap_or(&NO_STRATEGY);
                        (Shape::Typed(&field.ty), strategy)
                    }
                    None => (Shape::Unknown, &NO_STRATEGY),
                }
            }
            Shape::Typed(Type::Map(of)) => (Shape::Typed(&of.item), &NO_STRATEGY),
            _ => (Shape::Unknown, &NO_STRATEGY),
        }
    }

    fn map(&self, mut original: Map, mut patch: Map, shape: Shape<'s>) -> Result<Map, Status> {
        if let Some(directive) = patch.remove(DIRECTIVE) {
            return match directive.as_str() {
                Some("replace") => Ok(patch),
                Some("delete") => Ok(Map::new()),
                _ => Err(Status::bad_request(format!(
                    "unknown patch type: {} in map: {}",
                    go_print(&directive),
                    go_print(&Value::Object(patch))
                ))),
            };
        }
        retain_keys(&mut original, &mut patch)?;
        self.ordered_lists(&mut original, &mut patch, shape)?;
        for (key, change) in patch {
            let (name, deletes) = match key.strip_prefix(DELETE) {
                Some(name) => (name, true),
                None if key.starts_with(DELETE.trim_end_matches('/')) => {
                    return Err(Status::bad_request(BAD_DELETE));
                }
                None => (key.as_str(), false),
            };
            if change.is_null() {
                original.remove(name);
                continue;
            }
            let Some(before) = original.remove(name) else {
                keep(&mut original, name, change, deletes);
                continue;
            };
            let (inner, strategy) = self.field(shape, name);
            let after = match (before, change) {
                (Value::Object(before), Value::Object(change)) => {
                    let opaque = matches!(inner, Shape::Unknown | Shape::Typed(Type::Any));
                    if strategy.replace || opaque {
                        keep(&mut original, name, Value::Object(change), false);
                        continue;
                    }
                    Value::Object(self.map(before, change, inner)?)
                }
                (Value::Array(before), Value::Array(change)) if strategy.merge || deletes => {
                    Value::Array(self.list(before, change, inner, strategy, deletes)?)
                }
                // Only lists have a list of what to delete from them.
                (before, _) if deletes => before,
                (_, change @ Value::Array(_)) => change,
                (_, change) => {
                    keep(&mut original, name, change, false);
                    continue;
                }
            };
            original.insert(name.to_owned(), after);
        }
        Ok(original)
    }

    /// Lists whose order the patch gives: merged, then sorted by that order.
    fn ordered_lists(
        &self,
        original: &mut Map,
        patch: &mut Map,
        shape: Shape<'s>,
    ) -> Result<(), Status> {
        let prefix = ORDER.trim_end_matches('/');
        let keys: Vec<String> =
            patch.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        for key in keys {
            let Some(name) = key.strip_prefix(ORDER) else {
                return Err(Status::bad_request(BAD_ORDER));
            };
            let Some(Value::Array(order)) = patch.remove(&key) else {
                return Err(Status::bad_request(BAD_ORDER));
            };
            let (inner, strategy) = self.field(shape, name);
            let before = list_at(original.get(name))?;
            let change = list_at(patch.get(name))?;
            check_order(change.unwrap_or_default(), &order, &strategy.key)?;
            let merged = match (before, change) {
                (None, None) => continue,
                (Some(before), None) => before.to_vec(),
                (None, Some(change)) => {
                    let mut change = Value::Array(change.to_vec());
                    discard_nulls(&mut change);
                    match without_directives(change) {
                        Some(Value::Array(items)) => items,
                        _ => continue,
                    }
                }
                (Some(before), Some(change)) if strategy.merge => {
                    self.list(before.to_vec(), change.to_vec(), inner, strategy, false)?
                }
                (Some(_), Some(change)) => change.to_vec(),
            };
            let before = before.unwrap_or_default().to_vec();
            let merged = in_order(merged, &order, &before, &strategy.key)?;
            original.insert(name.to_owned(), Value::Array(merged));
            patch.remove(name);
        }
        Ok(())
    }

    fn list(
        &self,
        before: Vec<Value>,
        change: Vec<Value>,
        shape: Shape<'s>,
        strategy: &Strategy,
        deletes: bool,
    ) -> Result<Vec<Value>, Status> {
        if !same_kinds(&before, &change)? {
            if deletes {
                let gone = Places::new(&change, "");
                return Ok(before.into_iter().filter(|item| gone.of(item).is_none()).collect());
            }
            let mut seen = HashSet::new();
            let both = before.iter().chain(&change);
            let merged = both.filter(|item| seen.insert(item.to_string())).cloned().collect();
            return in_order(merged, &change, &before, "");
        }
        let key = strategy.key.as_ref();
        if key.is_empty() {
            return Err(Status::bad_request("cannot merge lists without merge key"));
        }
        let item = match shape {
            Shape::Typed(Type::List(list)) => Shape::Typed(&list.item),
            _ => Shape::Unknown,
        };
        let (before, change) = special_items(before, change, key)?;
        let mut merged = before.clone();
        let mut places = Places::new(&before, key);
        for one in &change {
            let value = key_of(one, key)?;
            match places.of(one) {
                None => {
                    places.places.insert(value.to_string(), merged.len());
                    merged.push(one.clone());
                }
                Some(at) => {
                    let have = merged[at].as_object().cloned().unwrap_or_default();
                    let one = one.as_object().cloned().unwrap_or_default();
                    merged[at] = Value::Object(self.map(have, one, item)?);
                }
            }
        }
        in_order(merged, &change, &before, key)
    }
}

/// Takes a patch's value where the object has none: directives and nulls mean nothing there.
fn keep(original: &mut Map, name: &str, mut change: Value, deletes: bool) {
    if deletes {
        return;
    }
    discard_nulls(&mut change);
    if let Some(value) = without_directives(change) {
        original.insert(name.to_owned(), value);
    }
}

/// `$retainKeys`: what it does not list goes.
fn retain_keys(original: &mut Map, patch: &mut Map) -> Result<(), Status> {
    let keys: BTreeSet<String> = match patch.remove(RETAIN_KEYS) {
        None => return Ok(()),
        Some(Value::Array(keys)) => {
            keys.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Some(_) => return Err(Status::bad_request(BAD_RETAIN)),
    };
    for (name, value) in patch.iter() {
        let directive = name.starts_with(DELETE) || name.starts_with(ORDER);
        if !value.is_null() && !directive && !keys.contains(name) {
            return Err(Status::bad_request(BAD_RETAIN));
        }
    }
    original.retain(|name, _| keys.contains(name));
    Ok(())
}

fn list_at(value: Option<&Value>) -> Result<Option<&[Value]>, Status> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(_) => Err(Status::bad_request("expected a list, but received another type")),
    }
}

/// Whether the items are maps; mixed lists and lists of lists are refused.
fn same_kinds(before: &[Value], change: &[Value]) -> Result<bool, Status> {
    let mut items = before.iter().chain(change);
    let Some(first) = items.next() else { return Ok(false) };
    if first.is_array() {
        return Err(unprocessable("lists of lists are not supported".to_owned()));
    }
    if items.any(|item| std::mem::discriminant(item) != std::mem::discriminant(first)) {
        return Err(Status::bad_request("list element types are not identical"));
    }
    Ok(first.is_object())
}

fn key_of<'v>(item: &'v Value, key: &str) -> Result<&'v Value, Status> {
    item.get(key).ok_or_else(|| {
        Status::bad_request(format!(
            "map: {} does not contain declared merge key: {key}",
            go_print(item)
        ))
    })
}

/// `$patch` in items of a list: deletes the item of that key, or replaces the list.
fn special_items(
    mut before: Vec<Value>,
    change: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Status> {
    let mut ordinary = Vec::with_capacity(change.len());
    let mut replace = false;
    let mut deleted = HashSet::new();
    for item in change {
        match item.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or("")) {
            None => ordinary.push(item),
            Some("delete") => {
                deleted.insert(key_of(&item, key)?.to_string());
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(Status::bad_request(
                    "merging lists cannot yet be specified in the patch",
                ));
            }
            Some(other) => {
                let map = go_print(&item);
                return Err(Status::bad_request(format!(
                    "unknown patch type: {other} in map: {map}"
                )));
            }
        }
    }
    if !deleted.is_empty() {
        let gone = |have: &Value| have.get(key).is_some_and(|k| deleted.contains(&k.to_string()));
        before.retain(|have| !gone(have));
    }
    Ok(if replace { (ordinary, Vec::new()) } else { (before, ordinary) })
}

/// The items of a patch's list must stand in the order that the patch itself asks for.
fn check_order(change: &[Value], order: &[Value], key: &str) -> Result<(), Status> {
    if order.is_empty() || change.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in change.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let mut found = false;
        for place in rest.by_ref() {
            let same = match key {
                "" => item == place,
                key => key_of(item, key)? == key_of(place, key)?,
            };
            if same {
                found = true;
                break;
            }
        }
        if !found {
            return Err(Status::bad_request(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                go_print(&Value::Array(change.to_vec())),
                go_print(&Value::Array(order.to_vec()))
            )));
        }
    }
    Ok(())
}

/// Where the items of a list stand, by their keys; lists are long where someone means harm.
struct Places<'k> {
    key: &'k str,
    places: HashMap<String, usize>,
}

impl<'k> Places<'k> {
    fn new(list: &[Value], key: &'k str) -> Self {
        let mut all = Self { key, places: HashMap::with_capacity(list.len()) };
        for (place, item) in list.iter().enumerate() {
            if let Some(text) = all.text(item) {
                all.places.entry(text).or_insert(place);
            }
        }
        all
    }

    fn text(&self, item: &Value) -> Option<String> {
        match self.key {
            "" => Some(item.to_string()),
            key => item.get(key).map(Value::to_string),
        }
    }

    fn of(&self, item: &Value) -> Option<usize> {
        self.places.get(&self.text(item)?).copied()
    }
}

/// Sorts a merged list: what `order` names in its order, the rest in the order of `live`; the two
/// are interleaved as the live list had them.
fn in_order(
    merged: Vec<Value>,
    order: &[Value],
    live: &[Value],
    key: &str,
) -> Result<Vec<Value>, Status> {
    if !key.is_empty() {
        for item in merged.iter().chain(order) {
            key_of(item, key)?;
        }
    }
    let (order, live) = (Places::new(order, key), Places::new(live, key));
    let (mut named, mut rest): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| order.of(item).is_some());
    named.sort_by_cached_key(|item| order.of(item));
    rest.sort_by_cached_key(|item| live.of(item));
    let mut out = Vec::with_capacity(named.len() + rest.len());
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    loop {
        let rest_first = match (rest.peek(), named.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(left), Some(right)) => {
                matches!((live.of(left), live.of(right)), (Some(l), Some(r)) if l < r)
            }
        };
        out.extend(if rest_first { rest.next() } else { named.next() });
    }
}

/// The value without maps that carry a directive; `None` when it is one.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => return None,
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter_map(|(name, value)| Some((name, without_directives(value)?)))
                .collect(),
        ),
        Value::Array(items) => {
            Value::Array(items.into_iter().filter_map(without_directives).collect())
        }
        other => other,
    })
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::schema::builtin;
    use serde_json::json;

    fn patched(kind: &str, current: Value, patch: Value) -> Result<Value, Status> {
        apply(builtin().root_by_name(kind).unwrap(), &current, &patch)
    }

    fn containers(current: Value, patch: Value) -> Value {
        let result = patched("core.v1.PodSpec", json!({"containers": current}), patch).unwrap();
        result["containers"].clone()
    }

    #[test]
    fn lists_merge_by_their_keys_and_new_items_come_first() {
        assert_eq!(
            containers(
                json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]},
                    {"name": "b"}]),
                json!({"containers": [{"name": "c"}, {"name": "a", "image": "2",
                    "env": [{"name": "Y", "value": "2"}]}]})
            ),
            json!([
                {"name": "c"},
                {"name": "a", "image": "2",
                 "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
                {"name": "b"}
            ])
        );
    }

    #[test]
    fn items_are_deleted_and_lists_replaced_by_directive() {
        let two = json!([{"name": "a", "image": "1"}, {"name": "b"}]);
        let delete = json!({"containers": [{"name": "a", "$patch": "delete"}]});
        assert_eq!(containers(two.clone(), delete), json!([{"name": "b"}]));
        let replace = json!({"containers": [{"name": "z"}, {"$patch": "replace"}]});
        assert_eq!(containers(two.clone(), replace), json!([{"name": "z"}]));
        let whole = json!({"$patch": "replace", "containers": [{"name": "q"}]});
        assert_eq!(containers(two.clone(), whole), json!([{"name": "q"}]));
        let null =
            patched("core.v1.PodSpec", json!({"containers": two}), json!({"containers": null}));
        assert_eq!(null.unwrap(), json!({}));
    }

    #[test]
    fn an_order_directive_sorts_the_merged_list() {
        assert_eq!(
            containers(
                json!([{"name": "a"}, {"name": "b"}, {"name": "live"}]),
                json!({"$setElementOrder/containers":
                        [{"name": "new"}, {"name": "b"}, {"name": "a"}],
                    "containers": [{"name": "new", "image": "n"}]})
            ),
            json!([{"name": "new", "image": "n"}, {"name": "b"}, {"name": "a"}, {"name": "live"}])
        );
        let wrong = json!({"$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"name": "b"}]});
        let status = patched("core.v1.PodSpec", json!({}), wrong).unwrap_err();
        assert!(
            status.message.starts_with("The order in patch list:\n[map[name:b]]\n doesn't match")
        );
    }

    #[test]
    fn primitive_lists_merge_as_sets_and_lose_what_a_patch_deletes() {
        let current = json!({"finalizers": ["a", "b", "c"]});
        let patch = json!({"$deleteFromPrimitiveList/finalizers": ["b"],
            "$setElementOrder/finalizers": ["a", "c", "d"], "finalizers": ["d"]});
        assert_eq!(
            patched("meta.v1.ObjectMeta", current.clone(), patch).unwrap(),
            json!({"finalizers": ["a", "c", "d"]})
        );
        let add =
            patched("meta.v1.ObjectMeta", current, json!({"finalizers": ["a", "x"]})).unwrap();
        assert_eq!(add, json!({"finalizers": ["a", "x", "b", "c"]}));
        // No strategy: the list is replaced.
        let args =
            patched("core.v1.Container", json!({"args": ["a", "b"]}), json!({"args": ["c"]}));
        assert_eq!(args.unwrap(), json!({"args": ["c"]}));
    }

    #[test]
    fn retain_keys_clears_the_other_fields_of_a_union() {
        let current =
            json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
        let patch = json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}});
        assert_eq!(
            patched("apps.v1.DeploymentSpec", current.clone(), patch).unwrap(),
            json!({"strategy": {"type": "Recreate"}})
        );
        let wrong = json!({"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}});
        let status = patched("apps.v1.DeploymentSpec", current, wrong).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (400, BAD_RETAIN));
        let volumes = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
        let patch = json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"],
            "hostPath": {"path": "/"}}]});
        assert_eq!(
            patched("core.v1.PodSpec", volumes, patch).unwrap(),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]})
        );
    }

    #[test]
    fn ports_merge_by_port_and_a_missing_key_is_refused() {
        let current = json!({"ports": [{"port": 80, "name": "http"}]});
        let patch = json!({"ports": [{"port": 443, "name": "https"}]});
        assert_eq!(
            patched("core.v1.ServiceSpec", current.clone(), patch).unwrap(),
            json!({"ports": [{"port": 443, "name": "https"}, {"port": 80, "name": "http"}]})
        );
        let status =
            patched("core.v1.ServiceSpec", current, json!({"ports": [{"name": "x"}]})).unwrap_err();
        assert_eq!(status.message, "map: map[name:x] does not contain declared merge key: port");
    }

    #[test]
    fn what_kubectl_apply_sends_changes_an_image_and_its_annotation() {
        let live = json!({"metadata": {"name": "d", "annotations":
                {"kubectl.kubernetes.io/last-applied-configuration": "old", "x": "y"}},
            "spec": {"replicas": 3, "template": {"spec": {"containers":
                [{"name": "web", "image": "a:1", "imagePullPolicy": "Always"}]}}}});
        let patch = json!({"metadata": {"annotations":
                {"kubectl.kubernetes.io/last-applied-configuration": "new"}},
            "spec": {"replicas": null, "template": {"spec": {
                "$setElementOrder/containers": [{"name": "web"}],
                "containers": [{"name": "web", "image": "a:2"}]}}}});
        assert_eq!(
            patched("apps.v1.Deployment", live, patch).unwrap(),
            json!({"metadata": {"name": "d", "annotations":
                    {"kubectl.kubernetes.io/last-applied-configuration": "new", "x": "y"}},
                "spec": {"template": {"spec": {"containers":
                    [{"name": "web", "image": "a:2", "imagePullPolicy": "Always"}]}}}})
        );
    }
}
