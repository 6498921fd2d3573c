//! JSON patch (RFC 6902).
//!
//! Why by hand: the bounds on operations and copied bytes, negative indices and `replace` of a
//! field that is not there follow what Kubernetes clients have come to rely on.

use super::unprocessable;
use crate::object::{Map, Status, Value};
use crate::stdx::limits::{BODY_DEPTH_MAX, JSON_PATCH_COPY_BYTES_MAX, JSON_PATCH_OPERATIONS_MAX};

/// Applies the operations in order; the first that fails refuses the whole patch.
pub fn apply(current: &Value, ops: &Value) -> Result<Value, Status> {
    let Value::Array(ops) = ops else {
        let what = crate::object::schema::decode::json_word(ops);
        return Err(Status::bad_request(format!(
            "json: cannot unmarshal {what} into Go value of type jsonpatch.Patch"
        )));
    };
    if ops.len() > JSON_PATCH_OPERATIONS_MAX {
        return Err(Status::too_large(format!(
            "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {}",
            ops.len()
        )));
    }
    let mut document = current.clone();
    let mut copied = 0;
    for op in ops {
        let Value::Object(op) = op else {
            let what = crate::object::schema::decode::json_word(op);
            return Err(Status::bad_request(format!(
                "json: cannot unmarshal {what} into Go value of type jsonpatch.Operation"
            )));
        };
        one(&mut document, op, &mut copied).map_err(unprocessable)?;
    }
    Ok(document)
}

/// What strict validation says of operations: fields that RFC 6902 does not know.
pub fn unknown_fields(ops: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for (index, op) in ops.as_array().into_iter().flatten().enumerate() {
        for name in op.as_object().into_iter().flat_map(Map::keys) {
            if !matches!(name.as_str(), "op" | "path" | "from" | "value") {
                all.push(format!("json patch unknown field {:?}", format!("[{index}].{name}")));
            }
        }
    }
    all
}

fn one(document: &mut Value, op: &Map, copied: &mut usize) -> Result<(), String> {
    let kind = op.get("op").and_then(Value::as_str).unwrap_or("unknown");
    let text = |name: &str, missing: &str| match op.get(name) {
        Some(Value::String(text)) => Ok(text.as_str()),
        _ => Err(format!("{kind} operation failed to decode {name}: {missing}")),
    };
    let path = || text("path", "operation missing path field: missing value");
    let from = || text("from", "operation, missing from field: missing value");
    let value = || op.get("value").cloned().unwrap_or_default();
    match kind {
        "add" => add(document, path()?, value(), kind),
        "remove" => take(document, path()?, kind).map(drop),
        "replace" => replace(document, path()?, value()),
        "move" => {
            let value = take(document, from()?, kind)?;
            add(document, path()?, value, kind)
        }
        "copy" => {
            let from = from()?;
            let value = get(document, from).map_err(|fault| match fault {
                None => format!(
                    "copy operation does not apply: doc is missing from path: {from}: missing value"
                ),
                Some(error) => format!("error in copy for from: '{from}': {error}"),
            })?;
            let value = value.cloned().unwrap_or_default();
            *copied += value.to_string().len();
            if *copied > JSON_PATCH_COPY_BYTES_MAX {
                return Err(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is \
                     {copied}, exceeding the limit {JSON_PATCH_COPY_BYTES_MAX}"
                ));
            }
            add(document, path()?, value, kind)
        }
        "test" => test(document, path()?, &value()),
        other => Err(format!("Unexpected kind: {other}")),
    }
}

/// The place that holds the last step of a path, and that step.
fn holder<'d>(document: &'d mut Value, path: &str) -> Option<(&'d mut Value, String)> {
    let mut steps = path.strip_prefix('/')?.split('/').map(unescape);
    let last = steps.next_back()?;
    let mut place = document;
    for step in steps {
        place = match place {
            Value::Object(map) => map.get_mut(&step)?,
            Value::Array(items) => {
                let index = index(&step, items.len()).ok()?;
                items.get_mut(index)?
            }
            _ => return None,
        };
    }
    matches!(place, Value::Object(_) | Value::Array(_)).then_some((place, last))
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// A place in a list of that length; negative ones count from the end.
fn index(step: &str, length: usize) -> Result<usize, String> {
    let number: i64 =
        step.parse().map_err(|_| format!("strconv.Atoi: parsing {step:?}: invalid syntax"))?;
    let wrong = || format!("Unable to access invalid index: {number}: invalid index referenced");
    let place = if number < 0 { number + length as i64 } else { number };
    usize::try_from(place).ok().filter(|place| *place < length).ok_or_else(wrong)
}

/// Many small operations must not build what no body may hold: stacks depend on it.
fn check_depth(path: &str, value: &Value) -> Result<(), String> {
    fn depth(value: &Value) -> usize {
        match value {
            Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }
    let steps = path.matches('/').count();
    if steps > BODY_DEPTH_MAX || steps + depth(value) > BODY_DEPTH_MAX {
        return Err(format!("path: '{path}': exceeded max depth"));
    }
    Ok(())
}

fn add(document: &mut Value, path: &str, value: Value, kind: &str) -> Result<(), String> {
    check_depth(path, &value)?;
    let missing = match kind {
        "add" => format!("add operation does not apply: doc is missing path: {path:?}"),
        _ => format!("{kind} operation does not apply: doc is missing destination path: {path}"),
    };
    let (place, step) =
        holder(document, path).ok_or_else(|| format!("{missing}: missing value"))?;
    match place {
        Value::Object(map) => {
            map.insert(step, value);
        }
        Value::Array(items) if step == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(&step, items.len() + 1)
                .map_err(|error| format!("error in {kind} for path: '{path}': {error}"))?;
            items.insert(at, value);
        }
        _ => {}
    }
    Ok(())
}

fn take(document: &mut Value, path: &str, kind: &str) -> Result<Value, String> {
    let (place, step) = holder(document, path).ok_or_else(|| match kind {
        "move" => format!(
            "move operation does not apply: doc is missing from path: {path}: missing value"
        ),
        _ => {
            format!("{kind} operation does not apply: doc is missing path: {path:?}: missing value")
        }
    })?;
    let taken = match place {
        Value::Object(map) => map
            .remove(&step)
            .ok_or_else(|| format!("Unable to remove nonexistent key: {step}: missing value")),
        Value::Array(items) => index(&step, items.len()).map(|at| items.remove(at)),
        _ => Ok(Value::Null),
    };
    taken.map_err(|error| format!("error in {kind} for path: '{path}': {error}"))
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), String> {
    check_depth(path, &value)?;
    if path.is_empty() {
        return match value {
            Value::Object(_) | Value::Array(_) => {
                *document = value;
                Ok(())
            }
            _ => Err("replace operation value must be object or array".to_owned()),
        };
    }
    let missing = |what: &str| {
        format!("replace operation does not apply: doc is missing {what}: {path}: missing value")
    };
    let (place, step) = holder(document, path).ok_or_else(|| missing("path"))?;
    match place {
        // A field that is not there is set: so the library that upstream uses has always done.
        Value::Object(map) => {
            map.insert(step, value);
        }
        Value::Array(items) => {
            let at = index(&step, items.len()).map_err(|_| missing("key"))?;
            items[at] = value;
        }
        _ => {}
    }
    Ok(())
}

/// The value at a path, `None` when its map lacks it; an error without text when the path ends
/// before its last step.
fn get<'d>(document: &'d mut Value, path: &str) -> Result<Option<&'d Value>, Option<String>> {
    let (place, step) = holder(document, path).ok_or(None)?;
    match place {
        Value::Object(map) => Ok(map.get(&step)),
        Value::Array(items) => {
            let at = index(&step, items.len()).map_err(Some)?;
            Ok(items.get(at))
        }
        _ => Err(None),
    }
}

fn test(document: &mut Value, path: &str, value: &Value) -> Result<(), String> {
    let failed = || Err(format!("testing value {path} failed: test failed"));
    if path.is_empty() {
        return if document == value { Ok(()) } else { failed() };
    }
    match get(document, path) {
        Err(None) => {
            Err(format!("test operation does not apply: is missing path: {path}: missing value"))
        }
        Err(Some(error)) => Err(format!("error in test for path: '{path}': {error}")),
        Ok(found) if found.unwrap_or(&Value::Null) == value => Ok(()),
        Ok(_) => failed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(ops: Value) -> Value {
        apply(&json!({"a": {"b": [1, 2, 3]}, "x/y": "z"}), &ops).unwrap()
    }

    fn refusal(ops: Value) -> String {
        let status = apply(&json!({"a": {"b": [1, 2, 3]}}), &ops).unwrap_err();
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
        status.details.unwrap().causes[0].message.clone()
    }

    #[test]
    fn each_operation_works() {
        assert_eq!(
            patched(json!([
                {"op": "test", "path": "/a/b/0", "value": 1},
                {"op": "add", "path": "/a/b/1", "value": 9},
                {"op": "add", "path": "/a/b/-", "value": 10},
                {"op": "remove", "path": "/a/b/-2"},
                {"op": "replace", "path": "/x~1y", "value": {"k": null}},
                {"op": "copy", "from": "/a/b", "path": "/c"},
                {"op": "move", "from": "/a/b/0", "path": "/d"},
                {"op": "replace", "path": "/new", "value": 1},
                {"op": "test", "path": "/nothing", "value": null},
            ])),
            json!({"a": {"b": [9, 2, 10]}, "c": [1, 9, 2, 10], "d": 1, "new": 1,
                "x/y": {"k": null}})
        );
    }

    #[test]
    fn what_does_not_apply_is_refused_with_the_reason() {
        for (ops, why) in [
            (
                json!({"op": "test", "path": "/a/b/0", "value": 2}),
                "testing value /a/b/0 failed: test failed",
            ),
            (
                json!({"op": "remove", "path": "/q"}),
                "error in remove for path: '/q': Unable to remove nonexistent key: q: missing \
                 value",
            ),
            (
                json!({"op": "add", "path": "/q/r", "value": 1}),
                "add operation does not apply: doc is missing path: \"/q/r\": missing value",
            ),
            (
                json!({"op": "add", "path": "/a/b/9", "value": 1}),
                "error in add for path: '/a/b/9': Unable to access invalid index: 9: invalid \
                 index referenced",
            ),
            (json!({"op": "frob", "path": "/a"}), "Unexpected kind: frob"),
            (
                json!({"op": "add"}),
                "add operation failed to decode path: operation missing path field: missing value",
            ),
        ] {
            assert_eq!(refusal(json!([ops])), why);
        }
        let status = apply(&json!({}), &json!({"op": "add"})).unwrap_err();
        assert_eq!(
            status.message,
            "json: cannot unmarshal object into Go value of type jsonpatch.Patch"
        );
    }

    #[test]
    fn operations_and_copies_are_bounded() {
        let many =
            vec![json!({"op": "test", "path": "", "value": {}}); JSON_PATCH_OPERATIONS_MAX + 1];
        assert_eq!(apply(&json!({}), &json!(many)).unwrap_err().code, 413);
        let grow = vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 64];
        assert!(
            refusal_of(&json!({"a": ["x".repeat(100)]}), &json!(grow))
                .contains("exceeding the limit")
        );
        fn refusal_of(current: &Value, ops: &Value) -> String {
            apply(current, ops).unwrap_err().details.unwrap().causes[0].message.clone()
        }
    }

    #[test]
    fn operations_cannot_nest_deeper_than_a_body() {
        let ops: Vec<Value> = (1..200)
            .map(|depth| json!({"op": "add", "path": "/x".repeat(depth), "value": {}}))
            .collect();
        assert!(refusal(json!(ops)).ends_with("exceeded max depth"));
        let wrap = json!({"op": "move", "from": "/a", "path": "/b/a"});
        let ops = [json!({"op": "add", "path": "/b", "value": {}}), wrap];
        assert!(apply(&json!({"a": {}}), &json!(ops)).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_patch_makes_it_panic(
            paths in proptest::collection::vec("(/[ab0-9~-]{0,3}){0,4}", 6),
        ) {
            let kinds = ["add", "remove", "replace", "move", "copy", "test"];
            let ops: Vec<Value> = kinds
                .iter()
                .zip(&paths)
                .map(|(op, path)| json!({"op": op, "path": path, "from": paths[0], "value": [1]}))
                .collect();
            for op in ops {
                let _ = apply(&json!({"a": [[1, 2], {"b": 3}], "0": {}}), &json!([op]));
            }
        }
    }

    #[test]
    fn strict_validation_names_unknown_fields() {
        let ops = json!([{"op": "add", "path": "/a", "vaule": 1}]);
        assert_eq!(unknown_fields(&ops), ["json patch unknown field \"[0].vaule\""]);
    }
}
