//! Sets of fields, as `managedFields` writes them (`FieldsV1`).
//!
//! Why the serialized element is the key: a set is then a tree with the very shape of its JSON
//! (`f:spec`, `k:{"name":"a"}`, `v:"x"`), so reading and writing one is a walk without parsing.

use std::collections::BTreeMap;

use crate::object::{Map, Value};

/// A set of fields. A field may be a member, have members below it, or both.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Set(BTreeMap<String, Node>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Node {
    member: bool,
    children: Set,
}

/// One step of a path to a field of a struct or map.
pub fn field(name: &str) -> String {
    format!("f:{name}")
}

/// One step to an item of a set of scalars.
pub fn item(value: &Value) -> String {
    format!("v:{value}")
}

/// One step to an item of a keyed list.
pub fn key(fields: Map) -> String {
    format!("k:{}", Value::Object(fields))
}

/// A path as people read it: `.spec.ports[port=80,protocol="TCP"].name`.
pub fn show(path: &[String]) -> String {
    path.iter().map(|step| show_step(step)).collect()
}

/// One step as people read it.
pub fn show_step(step: &str) -> String {
    let (kind, rest) = step.split_once(':').unwrap_or(("", step));
    match kind {
        "f" => format!(".{rest}"),
        "v" => format!("[={rest}]"),
        "k" => {
            let map: Map = serde_json::from_str(rest).unwrap_or_default();
            let parts: Vec<_> = map.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", parts.join(","))
        }
        _ => format!("[{rest}]"),
    }
}

impl Set {
    /// Adds the field at a path; the whole object (an empty path) is nobody's.
    pub fn insert(&mut self, path: &[String]) {
        let Some((last, above)) = path.split_last() else { return };
        let mut set = self;
        for step in above {
            set = &mut set.0.entry(step.clone()).or_default().children;
        }
        set.0.entry(last.clone()).or_default().member = true;
    }

    /// Adds what is known of one step, if anything is.
    pub fn put(&mut self, step: impl FnOnce() -> String, member: bool, children: Set) {
        if member || !children.0.is_empty() {
            self.0.insert(step(), Node { member, children });
        }
    }

    /// Whether the field at a path is a member.
    pub fn has(&self, path: &[String]) -> bool {
        let Some((last, above)) = path.split_last() else { return false };
        let mut set = self;
        for step in above {
            match set.0.get(step) {
                Some(node) => set = &node.children,
                None => return false,
            }
        }
        set.has_step(last)
    }

    /// Whether a direct child is a member.
    pub fn has_step(&self, step: &str) -> bool {
        self.0.get(step).is_some_and(|node| node.member)
    }

    /// What is below a step.
    pub fn below(&self, step: &str) -> Option<&Set> {
        self.0.get(step).map(|node| &node.children).filter(|set| !set.is_empty())
    }

    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|node| !node.member && node.children.is_empty())
    }

    /// Members of either.
    pub fn union(&self, other: &Set) -> Set {
        let mut out = self.clone();
        for (step, node) in &other.0 {
            let place = out.0.entry(step.clone()).or_default();
            place.member |= node.member;
            place.children = place.children.union(&node.children);
        }
        out
    }

    /// Members of both.
    pub fn intersection(&self, other: &Set) -> Set {
        self.zip(other, |mine, theirs| mine && theirs, |_| Set::default())
    }

    /// Members of this that are not members of the other; a member's children stay.
    pub fn difference(&self, other: &Set) -> Set {
        self.zip(other, |mine, theirs| mine && !theirs, Set::clone)
    }

    fn zip(&self, other: &Set, member: fn(bool, bool) -> bool, alone: fn(&Set) -> Set) -> Set {
        let mut out = BTreeMap::new();
        for (step, node) in &self.0 {
            let theirs = other.0.get(step);
            let node = Node {
                member: member(node.member, theirs.is_some_and(|node| node.member)),
                children: match theirs {
                    Some(theirs) => node.children.zip(&theirs.children, member, alone),
                    None => alone(&node.children),
                },
            };
            if node.member || !node.children.is_empty() {
                out.insert(step.clone(), node);
            }
        }
        Set(out)
    }

    /// Takes one field out; what is below it stays.
    pub fn forget(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let step = field(first);
        let Some(node) = self.0.get_mut(&step) else { return };
        match rest {
            [] => node.member = false,
            rest => node.children.forget(rest),
        }
        if !node.member && node.children.0.is_empty() {
            self.0.remove(&step);
        }
    }

    /// Without a path and all below it.
    pub fn without(mut self, path: &[&str]) -> Set {
        fn cut(set: &mut Set, path: &[&str]) {
            let Some((first, rest)) = path.split_first() else { return };
            match (set.0.get_mut(&field(first)), rest.is_empty()) {
                (Some(node), false) => cut(&mut node.children, rest),
                _ => {
                    set.0.remove(&field(first));
                }
            }
        }
        cut(&mut self, path);
        self
    }

    /// Makes members of the steps that have children and for which `named` says so; it also says
    /// how to go on below a step.
    pub fn with_named<C: Copy>(&self, at: C, named: &dyn Fn(C, &str) -> (bool, C)) -> Set {
        let grown = self.0.iter().map(|(step, node)| {
            let (is_named, below) = named(at, step);
            let children = node.children.with_named(below, named);
            let member = node.member || (is_named && !children.is_empty());
            (step.clone(), Node { member, children })
        });
        Set(grown.collect())
    }

    /// Every member's path: those of one level before those below them.
    pub fn paths(&self) -> Vec<Vec<String>> {
        fn walk(set: &Set, prefix: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
            for (step, _) in set.0.iter().filter(|(_, node)| node.member) {
                let mut path = prefix.clone();
                path.push(step.clone());
                out.push(path);
            }
            for (step, node) in &set.0 {
                prefix.push(step.clone());
                walk(&node.children, prefix, out);
                prefix.pop();
            }
        }
        let mut out = Vec::new();
        walk(self, &mut Vec::new(), &mut out);
        out
    }

    /// `FieldsV1`.
    pub fn to_value(&self) -> Value {
        let steps = self.0.iter().map(|(step, node)| {
            let mut below = node.children.to_value();
            if let (true, Value::Object(map)) = (node.member, &mut below)
                && !map.is_empty()
            {
                map.insert(".".to_owned(), Value::Object(Map::new()));
            }
            (step.clone(), below)
        });
        Value::Object(steps.collect())
    }

    /// Reads `FieldsV1`.
    pub fn from_value(value: &Value) -> Set {
        let mut out = BTreeMap::new();
        for (step, below) in value.as_object().into_iter().flatten() {
            if step == "." {
                continue;
            }
            let children = Set::from_value(below);
            let member = children.0.is_empty() || below.get(".").is_some();
            out.insert(step.clone(), Node { member, children });
        }
        Set(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: Value) -> Set {
        Set::from_value(&value)
    }

    #[test]
    fn fields_v1_survives_a_round_trip() {
        let value = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
            ".": {}, "f:image": {}, "f:name": {}}}}, "f:finalizers": {".": {}, "v:\"x\"": {}}});
        assert_eq!(set(value.clone()).to_value(), value);
        let paths = set(value).paths();
        assert_eq!(show(&paths[0]), ".finalizers");
        assert_eq!(show(&paths[1]), ".finalizers[=\"x\"]");
        assert_eq!(show(&paths[2]), ".spec.containers[name=\"a\"]");
    }

    #[test]
    fn set_algebra_is_by_member() {
        let a = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let b = set(json!({"f:a": {"f:b": {}}}));
        assert_eq!(a.difference(&b).to_value(), json!({"f:a": {}, "f:c": {}}));
        assert_eq!(a.intersection(&b).to_value(), json!({"f:a": {"f:b": {}}}));
        assert_eq!(b.union(&a), a);
        assert_eq!(a.clone().without(&["a"]).to_value(), json!({"f:c": {}}));
        assert!(b.difference(&a).is_empty());
    }
}
