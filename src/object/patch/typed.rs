//! Walks over values by the list kinds of the table: which fields are set, what differs, how two
//! merge, what is left when fields go.
//!
//! Why apart from `apply`: these are the four primitives of structured merge; ownership is
//! arithmetic over what they return.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use super::fields::{Set, field, item, key, show_step};
use crate::object::schema::{Field, List, ListKind, Root, Schemas, Struct, Type};
use crate::object::{Map, Value};

/// How a place of an object merges.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'s> {
    /// One value, whatever it holds.
    Leaf,
    /// By the fields of a struct.
    Struct(&'s Struct),
    /// By the keys of a map.
    Map(&'s Type),
    /// By the items of a set or a keyed list.
    List(&'s List),
}

/// The walks, for one set of types.
#[derive(Debug, Clone, Copy)]
pub struct Walk<'s> {
    schemas: &'s Schemas,
    root: Kind<'s>,
}

/// What changed from one value to another.
#[derive(Debug, Default)]
pub struct Changes {
    /// Only in the second, or different in it.
    pub set: Set,
    /// Only in the first.
    pub removed: Set,
}

/// The same for one place: whether it is a field that changed itself, and what changed below it.
#[derive(Debug, Default)]
struct Delta {
    set: (bool, Set),
    removed: (bool, Set),
}

impl Delta {
    fn put(&mut self, step: impl Fn() -> String, below: Delta) {
        self.set.1.put(&step, below.set.0, below.set.1);
        self.removed.1.put(&step, below.removed.0, below.removed.1);
    }
}

impl<'s> Walk<'s> {
    /// Walks over objects of a root's type.
    pub fn new(root: Root<'s>) -> Self {
        Self { schemas: root.schemas, root: Kind::Struct(root.get()) }
    }

    fn kind(&self, ty: &'s Type, atomic: Option<bool>) -> Kind<'s> {
        match ty {
            Type::Struct(id) => {
                let of = self.schemas.get(*id);
                if atomic.unwrap_or(of.atomic) { Kind::Leaf } else { Kind::Struct(of) }
            }
            Type::Map(map) if !atomic.unwrap_or(map.atomic) => Kind::Map(&map.item),
            Type::List(list) if list.kind != ListKind::Atomic => Kind::List(list),
            _ => Kind::Leaf,
        }
    }

    fn of_field(&self, field: &'s Field) -> Kind<'s> {
        self.kind(&field.ty, field.atomic)
    }

    /// How the value below a field of a map or struct merges, and whether the field is declared.
    fn child(&self, kind: Kind<'s>, name: &str) -> (Kind<'s>, bool) {
        match kind {
            Kind::Struct(of) => match of.field(name) {
                Some(field) => (self.of_field(field), true),
                None => (Kind::Leaf, false),
            },
            Kind::Map(item) => (self.kind(item, None), false),
            _ => (Kind::Leaf, false),
        }
    }

    /// The step to an item of a list. Keys that are absent have their defaults.
    fn step(&self, list: &List, value: &Value) -> Result<String, String> {
        let ListKind::Map(keys) = &list.kind else {
            return match value {
                Value::Object(_) => Err("associative list without keys has an element that's a \
                                         map type"
                    .to_owned()),
                Value::Array(_) => {
                    Err("not supported: associative list with lists as elements".to_owned())
                }
                Value::Null => Err("associative list without keys has an element that's an \
                                    explicit null"
                    .to_owned()),
                scalar => Ok(item(scalar)),
            };
        };
        let Value::Object(map) = value else {
            let what = if value.is_null() { "a null element" } else { "non-map elements" };
            return Err(format!("associative list with keys may not have {what}"));
        };
        let mut fields = Map::new();
        for name in keys {
            let default = || match &list.item {
                Type::Struct(id) => self.schemas.get(*id).field(name)?.default.as_deref().cloned(),
                _ => None,
            };
            if let Some(value) = map.get(name.as_ref()).cloned().or_else(default) {
                fields.insert(name.clone().into_owned(), value);
            }
        }
        if fields.is_empty() {
            let names: Vec<_> = keys.iter().map(|name| format!("{name:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and \
                 doesn't have default values for any key fields)",
                names.join(" ")
            ));
        }
        Ok(key(fields))
    }

    /// The items of a list with their steps. Items without one are nobody's.
    fn items<'v>(&self, list: &List, value: Option<&'v Value>) -> Vec<(String, &'v Value)> {
        let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|item| Some((self.step(list, item).ok()?, item))).collect()
    }

    /// The same by step; items that share a step are twins.
    fn by_step<'v>(
        &self,
        list: &List,
        value: Option<&'v Value>,
    ) -> BTreeMap<String, Vec<&'v Value>> {
        let mut all: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for (step, item) in self.items(list, value) {
            all.entry(step).or_default().push(item);
        }
        all
    }

    /// The fields that a value sets.
    pub fn fields(&self, value: &Value) -> Set {
        self.collect(value, self.root).1
    }

    /// Whether the value is a field itself, and the fields below it.
    fn collect(&self, value: &Value, kind: Kind<'s>) -> (bool, Set) {
        let mut set = Set::default();
        match (kind, value) {
            (Kind::Leaf, _) => return (true, set),
            (Kind::Struct(_) | Kind::Map(_), Value::Object(map)) => {
                for (name, value) in map {
                    let (below, declared) = self.child(kind, name);
                    let (member, fields) = self.collect(value, below);
                    let bare = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                    set.put(|| field(name), member || bare || !declared, fields);
                }
            }
            (Kind::List(list), Value::Array(_)) => {
                let below = self.kind(&list.item, None);
                for (step, items) in self.by_step(list, Some(value)) {
                    let fields = match items.as_slice() {
                        [one] => self.collect(one, below).1,
                        _ => Set::default(),
                    };
                    set.put(|| step, true, fields);
                }
            }
            _ => {}
        }
        (false, set)
    }

    /// What changed from `old` to `new`.
    pub fn compare(&self, old: &Value, new: &Value) -> Changes {
        let delta = self.differ(Some(old), Some(new), self.root);
        Changes { set: delta.set.1, removed: delta.removed.1 }
    }

    fn differ(&self, old: Option<&Value>, new: Option<&Value>, kind: Kind<'s>) -> Delta {
        let mut out = Delta::default();
        if old.is_some() && old == new {
            return out;
        }
        if matches!(kind, Kind::Leaf) || (is_bare(old) && is_bare(new)) {
            let place = if new.is_none() { &mut out.removed } else { &mut out.set };
            place.0 = true;
            return out;
        }
        match kind {
            Kind::List(list) => self.differ_items(old, new, list, &mut out),
            kind => {
                let empty = Map::new();
                let both = old.is_some() && new.is_some();
                let old = old.and_then(Value::as_object).unwrap_or(&empty);
                let new = new.and_then(Value::as_object).unwrap_or(&empty);
                let more = new.keys().filter(|name| !old.contains_key(*name));
                for name in old.keys().chain(more) {
                    let (below, _) = self.child(kind, name);
                    let absent = if both { always_there(kind, name) } else { None };
                    let (old, new) = (old.get(name).or(absent), new.get(name).or(absent));
                    out.put(|| field(name), self.differ(old, new, below));
                }
            }
        }
        match (old, new) {
            (None, _) => out.set.0 = true,
            (_, None) => out.removed.0 = true,
            _ => {}
        }
        out
    }

    fn differ_items(
        &self,
        old: Option<&Value>,
        new: Option<&Value>,
        list: &'s List,
        out: &mut Delta,
    ) {
        let (old, mut new) = (self.by_step(list, old), self.by_step(list, new));
        let below = self.kind(&list.item, None);
        let pairs: Vec<_> = old
            .into_iter()
            .map(|(step, before)| {
                let after = new.remove(&step).unwrap_or_default();
                (step, before, after)
            })
            .collect();
        let added = new.into_iter().map(|(step, after)| (step, Vec::new(), after));
        for (step, before, after) in pairs.into_iter().chain(added) {
            let delta = match (before.as_slice(), after.as_slice()) {
                ([] | [_], [] | [_]) => {
                    self.differ(before.first().copied(), after.first().copied(), below)
                }
                // Twins are one value.
                ([_, _, ..], [_, _, ..]) => {
                    Delta { set: (before != after, Set::default()), ..Delta::default() }
                }
                ([_, _, ..], after) => {
                    let mut delta = match after {
                        [one] => self.differ(None, Some(one), below),
                        _ => Delta::default(),
                    };
                    delta.removed.0 = true;
                    delta
                }
                (before, _) => {
                    let mut delta = match before {
                        [one] => self.differ(Some(one), None, below),
                        _ => Delta::default(),
                    };
                    delta.set.0 = true;
                    delta
                }
            };
            out.put(|| step.clone(), delta);
        }
    }

    /// `live` with `config` on top.
    pub fn merge(&self, live: &Value, config: &Value) -> Value {
        self.join(Some(live), Some(config), self.root).unwrap_or_default()
    }

    fn join(&self, live: Option<&Value>, config: Option<&Value>, kind: Kind<'s>) -> Option<Value> {
        if matches!(kind, Kind::Leaf) || (is_bare(live) && is_bare(config)) {
            return config.or(live).cloned();
        }
        if let Kind::List(list) = kind {
            let items = self.join_items(live, config, list);
            return (!items.is_empty()).then_some(Value::Array(items));
        }
        let mut out = Map::new();
        let empty = Map::new();
        let live = live.and_then(Value::as_object).unwrap_or(&empty);
        let config = config.and_then(Value::as_object).unwrap_or(&empty);
        for name in live.keys().chain(config.keys().filter(|name| !live.contains_key(*name))) {
            let (below, _) = self.child(kind, name);
            if let Some(value) = self.join(live.get(name), config.get(name), below) {
                out.insert(name.clone(), value);
            }
        }
        (!out.is_empty()).then_some(Value::Object(out))
    }

    /// Items of both keep the order of `config`; those of `live` alone stay where they were among
    /// them.
    fn join_items(
        &self,
        live: Option<&Value>,
        config: Option<&Value>,
        list: &'s List,
    ) -> Vec<Value> {
        let (live, config) = (self.items(list, live), self.items(list, config));
        let below = self.kind(&list.item, None);
        let mut of_live: HashMap<&str, Vec<&Value>> = HashMap::new();
        for (step, value) in &live {
            of_live.entry(step).or_default().push(value);
        }
        let of_config: HashSet<&str> = config.iter().map(|(step, _)| step.as_str()).collect();
        let merge = |step: &str, value: &Value| {
            let before = match of_live.get(step).map(Vec::as_slice) {
                Some([one]) => Some(*one),
                _ => None,
            };
            self.join(before, Some(value), below)
        };
        let shared: Vec<&str> = config
            .iter()
            .map(|(step, _)| step.as_str())
            .filter(|step| of_live.contains_key(step))
            .collect();
        let (mut out, mut merged) = (Vec::new(), HashSet::<&str>::new());
        let (mut at_live, mut at_config, mut at_shared) = (0, 0, 0);
        while at_live < live.len() || at_config < config.len() {
            if let (Some((step, _)), Some((wanted, value))) =
                (live.get(at_live), config.get(at_config))
            {
                if step == wanted {
                    out.extend(merge(wanted, value));
                    merged.insert(wanted);
                    (at_live, at_config, at_shared) = (at_live + 1, at_config + 1, at_shared + 1);
                    continue;
                }
                let next = shared.get(at_shared);
                if of_config.contains(step.as_str()) && next.is_some_and(|next| next != step) {
                    at_live += 1;
                    continue;
                }
            }
            if let Some((step, value)) = live.get(at_live) {
                if !of_config.contains(step.as_str()) {
                    out.extend(self.join(Some(value), None, below));
                    at_live += 1;
                    continue;
                }
                if merged.contains(step.as_str()) {
                    at_live += 1;
                }
            }
            if let Some((step, value)) = config.get(at_config) {
                out.extend(merge(step, value));
                merged.insert(step);
                at_config += 1;
                if shared.get(at_shared) == Some(&step.as_str()) {
                    at_shared += 1;
                }
            }
        }
        out
    }

    /// The value without the fields of a set. Maps and lists that lose all they hold stay, empty.
    pub fn remove(&self, value: &Value, gone: &Set) -> Value {
        self.cut(value, gone, self.root)
    }

    fn cut(&self, value: &Value, gone: &Set, kind: Kind<'s>) -> Value {
        match (kind, value) {
            (Kind::Struct(_) | Kind::Map(_), Value::Object(map)) => {
                let mut out = Map::new();
                for (name, value) in map {
                    let step = field(name);
                    if gone.has_step(&step) {
                        continue;
                    }
                    let (below, _) = self.child(kind, name);
                    let value = match gone.below(&step) {
                        Some(gone) => self.cut(value, gone, below),
                        None => value.clone(),
                    };
                    out.insert(name.clone(), value);
                }
                Value::Object(out)
            }
            (Kind::List(list), Value::Array(items)) => {
                let below = self.kind(&list.item, None);
                let kept = items.iter().filter_map(|value| {
                    let Ok(step) = self.step(list, value) else { return Some(value.clone()) };
                    if gone.has_step(&step) {
                        return None;
                    }
                    Some(match gone.below(&step) {
                        Some(gone) => self.cut(value, gone, below),
                        None => value.clone(),
                    })
                });
                Value::Array(kept.collect())
            }
            (_, other) => other.clone(),
        }
    }

    /// The set with every declared field that has members below it as a member too.
    pub fn with_named(&self, set: &Set) -> Set {
        set.with_named(self.root, &|kind: Kind<'s>, step: &str| match (
            step.strip_prefix("f:"),
            kind,
        ) {
            (Some(name), kind) => {
                let (below, declared) = self.child(kind, name);
                (declared, below)
            }
            (None, Kind::List(list)) => (false, self.kind(&list.item, None)),
            (None, _) => (false, Kind::Leaf),
        })
    }

    /// What is wrong with an applied configuration, in upstream's words; empty when nothing is.
    pub fn validate(&self, config: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        self.check(config, self.root, &mut String::new(), &mut errors);
        errors
    }

    fn check(&self, value: &Value, kind: Kind<'s>, at: &mut String, errors: &mut Vec<String>) {
        let colon = |at: &str| if at.is_empty() { String::new() } else { format!("{at}: ") };
        let length = at.len();
        match (kind, value) {
            (_, Value::Null) | (Kind::Leaf, _) => {}
            (Kind::Struct(_) | Kind::Map(_), Value::Object(map)) => {
                for (name, value) in map {
                    at.push_str(&show_step(&field(name)));
                    let unknown = match kind {
                        Kind::Struct(of) => !of.preserve && of.field(name).is_none(),
                        _ => false,
                    };
                    if unknown {
                        errors.push(format!("{at}: field not declared in schema"));
                    } else {
                        self.check_field(value, kind, name, at, errors);
                    }
                    at.truncate(length);
                }
            }
            (Kind::List(list), Value::Array(items)) => {
                let mut seen: HashSet<String> = HashSet::new();
                for (index, value) in items.iter().enumerate() {
                    match self.step(list, value) {
                        Err(error) => errors.push(format!("{}element {index}: {error}", colon(at))),
                        Ok(step) => {
                            let shown = show_step(&step);
                            if !seen.insert(step) {
                                errors.push(format!(
                                    "{}duplicate entries for key {shown}",
                                    colon(at)
                                ));
                            }
                            at.push_str(&shown);
                            self.check(value, self.kind(&list.item, None), at, errors);
                            at.truncate(length);
                        }
                    }
                }
            }
            (kind, value) => {
                let wanted = if matches!(kind, Kind::List(_)) { "list" } else { "map" };
                errors.push(format!("{}expected {wanted}, got {value}", colon(at)));
            }
        }
    }

    /// Atomic values are checked for their types and fields as well.
    fn check_field(
        &self,
        value: &Value,
        kind: Kind<'s>,
        name: &str,
        at: &mut String,
        errors: &mut Vec<String>,
    ) {
        let ty = match kind {
            Kind::Struct(of) => of.field(name).map(|field| &field.ty),
            Kind::Map(item) => Some(item),
            _ => None,
        };
        match (self.child(kind, name).0, ty) {
            (Kind::Leaf, Some(ty)) => self.check_leaf(value, ty, at, errors),
            (below, _) => self.check(value, below, at, errors),
        }
    }

    fn check_leaf(&self, value: &Value, ty: &'s Type, at: &mut String, errors: &mut Vec<String>) {
        let length = at.len();
        let wanted = match (ty, value) {
            (_, Value::Null) => return,
            (Type::Struct(id), _) => {
                return self.check(value, Kind::Struct(self.schemas.get(*id)), at, errors);
            }
            (Type::Map(map), Value::Object(_)) => {
                return self.check(value, Kind::Map(&map.item), at, errors);
            }
            (Type::List(list), Value::Array(items)) => {
                for (index, value) in items.iter().enumerate() {
                    at.push_str(&format!("[{index}]"));
                    self.check_leaf(value, &list.item, at, errors);
                    at.truncate(length);
                }
                return;
            }
            (Type::Int32 | Type::Int64 | Type::Double, Value::Number(_)) => return,
            (Type::Int32 | Type::Int64 | Type::Double, _) => {
                let what = match value {
                    Value::String(_) => "string",
                    Value::Bool(_) => "bool",
                    Value::Array(_) => "[]interface {}",
                    _ => "map[string]interface {}",
                };
                errors.push(format!("{at}: expected numeric (int or float), got {what}"));
                return;
            }
            (Type::Bool, Value::Bool(_)) => return,
            (Type::Bool, _) => "boolean",
            (Type::String(_) | Type::Bytes, Value::String(_)) => return,
            (Type::String(_) | Type::Bytes, _) => "string",
            (Type::Map(_), _) => "map",
            (Type::List(_), _) => "list",
            _ => return,
        };
        errors.push(format!("{at}: expected {wanted}, got {value}"));
    }
}

/// What Go writes where a field of a present struct is not set: embedded structs are empty rather
/// than absent, and so nobody gets to own them by being the first to set something in them.
fn always_there(kind: Kind, name: &str) -> Option<&'static Value> {
    static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
    static NULL: Value = Value::Null;
    let Kind::Struct(of) = kind else { return None };
    let field = of.field(name)?;
    match &field.ty {
        Type::List(_) if field.required => Some(&NULL),
        Type::Struct(_) if field.default.as_deref() == Some(&EMPTY) => Some(&EMPTY),
        _ => None,
    }
}

/// Absent, `null`, or a map or list of nothing: such values are told apart as leaves.
fn is_bare(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}
