//! Event, in the core group and in events.k8s.io: one object under two sets of names.
//!
//! Why checked in the core group's shape: that is how events are stored, and upstream's paths are
//! its names.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;

use super::super::columns::{col, name_column, number, or, since, wide};
use super::super::field::{Errors, Field};
use super::super::{names, validate};
use crate::api::kind::{Column, Strategy, Write};
use crate::client::Propagation;
use crate::object::status::{FieldError, Result};
use crate::object::{Gvk, Map, Value, meta};
use crate::stdx::limits::EVENT_TTL;

/// The Event's strategy.
pub(in super::super) struct Event {
    /// Served as `events.k8s.io/v1`.
    pub(in super::super) new_names: bool,
}

/// (in the core group, in events.k8s.io).
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("source", "deprecatedSource"),
    ("message", "note"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];
/// What events.k8s.io lets no update change.
const IMMUTABLE: &[&str] = &[
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
];
const GROUP: &str = "events.k8s.io";
const TEXT_BYTES_MAX: usize = 128;
const MESSAGE_BYTES_MAX: usize = 1024;

const CORE_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const NEW_FIELDS: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

fn has_new_names(object: &Value) -> bool {
    meta::text(object, &["apiVersion"]).starts_with(GROUP)
}

fn renamed(object: Value, to: &Gvk) -> Value {
    let Value::Object(map) = object else { return object };
    let to_new = to.group == GROUP;
    let rename = |name: String| {
        let pair = NAMES.iter().find(|(core, new)| name == if to_new { *core } else { *new });
        pair.map_or(name, |(core, new)| (if to_new { *new } else { *core }).to_owned())
    };
    let mut map: Map = map.into_iter().map(|(name, value)| (rename(name), value)).collect();
    map.insert("apiVersion".to_owned(), to.api_version().into());
    Value::Object(map)
}

/// The event under the core group's names.
fn core(object: &Value) -> Cow<'_, Value> {
    if has_new_names(object) {
        Cow::Owned(renamed(object.clone(), &Gvk::new("", "v1", "Event")))
    } else {
        Cow::Borrowed(object)
    }
}

impl Strategy for Event {
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

    fn default_propagation(&self) -> Option<Propagation> {
        None
    }

    fn time_to_live(&self, _object: &Value) -> Option<Duration> {
        Some(EVENT_TTL)
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let event = core(object);
        let mut out = legacy(&event, self.new_names);
        if self.new_names {
            strict(&event, &mut out);
        }
        out
    }

    fn validate_update(&self, _write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let (new, old) = (core(new), core(old));
        let mut out = legacy(&new, self.new_names);
        if self.new_names {
            let series = |event: &Value| event.get("series").cloned().unwrap_or_default();
            if !validate::same(&series(&new), &series(&old)) {
                check_series(&new, &mut out);
            }
            for name in IMMUTABLE {
                validate::immutable_at(&new, &old, &[name], &mut out);
            }
        }
        out
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        if self.new_names { NEW_FIELDS } else { CORE_FIELDS }
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let event = core(object);
        let value = |name: &str| match name {
            "source" => {
                let source = meta::text(&event, &["source", "component"]);
                or(source, meta::text(&event, &["reportingComponent"])).to_owned()
            }
            "reportingController" => meta::text(&event, &["reportingComponent"]).to_owned(),
            name => match name.split_once('.') {
                Some((_, member)) => meta::text(&event, &["involvedObject", member]).to_owned(),
                None => meta::text(&event, &[name]).to_owned(),
            },
        };
        self.selectable_names().iter().map(|name| (*name, value(name))).collect()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            col("Last Seen"),
            col("Type"),
            col("Reason"),
            col("Object"),
            wide("Subobject"),
            wide("Source"),
            col("Message"),
            wide("First Seen"),
            wide("Count"),
            name_column(1),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let event = core(object);
        let text = |path: &[&str]| meta::text(&event, path);
        let ago = |path: &[&str]| since(&event, path, now);
        let unknown = || "<unknown>".to_owned();
        let first = ago(&["firstTimestamp"]).or_else(|| ago(&["eventTime"]));
        let first = first.unwrap_or_else(unknown);
        let series = event.get("series").is_some_and(|series| !series.is_null());
        let (last, count) = if series {
            let seen = ago(&["series", "lastObservedTime"]).unwrap_or_else(unknown);
            (seen, number(&event, &["series", "count"]))
        } else {
            let seen = ago(&["lastTimestamp"]).unwrap_or_else(|| first.clone());
            (seen, number(&event, &["count"]).max(1))
        };
        let kind = text(&["involvedObject", "kind"]).to_lowercase();
        let target = match text(&["involvedObject", "name"]) {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        let component = or(text(&["source", "component"]), text(&["reportingComponent"]));
        let source = match or(text(&["source", "host"]), text(&["reportingInstance"])) {
            "" => component.to_owned(),
            host => format!("{component}, {host}"),
        };
        vec![
            last.into(),
            text(&["type"]).into(),
            text(&["reason"]).into(),
            target.into(),
            text(&["involvedObject", "fieldPath"]).into(),
            source.into(),
            text(&["message"]).trim().into(),
            first.into(),
            count.into(),
            meta::name(&event).into(),
        ]
    }

    fn convert(&self, object: Value, to: &Gvk) -> Result<Value> {
        Ok(renamed(object, to))
    }
}

/// What every event is held to.
fn legacy(event: &Value, new_names: bool) -> Errors {
    let mut out = Errors::new();
    let root = Field::root(event);
    let involved = root.get("involvedObject");
    let namespace = involved.get("namespace");
    let own = meta::namespace(event);
    let differs = "does not match event.namespace";
    if !root.get("eventTime").is_set() {
        let fits = match namespace.text() {
            "" => own.is_empty() || own == "default",
            other => own == other,
        };
        if !fits {
            out.push(namespace.invalid_as(namespace.text(), differs));
        }
        return out;
    }
    if namespace.text().is_empty() && !matches!(own, "default" | "kube-system") {
        out.push(namespace.invalid_as("", differs));
    }
    let name = if new_names { "reportingController" } else { "reportingComponent" };
    let controller = root.named(name, root.get("reportingComponent").value());
    validate::required(&controller, &mut out);
    validate::format(&controller, names::qualified_name, &mut out);
    for (name, max, needed) in [
        ("reportingInstance", TEXT_BYTES_MAX, true),
        ("action", TEXT_BYTES_MAX, true),
        ("reason", TEXT_BYTES_MAX, true),
        ("message", MESSAGE_BYTES_MAX, false),
    ] {
        let field = root.get(name);
        if needed {
            validate::required(&field, &mut out);
        }
        if field.text().len() > max {
            out.push(field.invalid_as("", format!("can have at most {max} characters")));
        }
    }
    out
}

/// What a new event of events.k8s.io is held to besides.
fn strict(event: &Value, out: &mut Errors) {
    let root = Field::root(event);
    check_series(event, out);
    validate::required(&root.get("eventTime"), out);
    let kind = root.get("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        out.push(kind.invalid_as("", format!("has invalid value: {}", kind.text())));
    }
    for name in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let field = root.get(name);
        if !field.is_empty() && field.int() != Some(0) {
            out.push(field.invalid_as("", "needs to be unset"));
        }
    }
}

fn check_series(event: &Value, out: &mut Errors) {
    let root = Field::root(event);
    let series = root.get("series");
    if !series.is_set() {
        return;
    }
    if series.get("count").int().unwrap_or(0) < 2 {
        out.push(series.get("count").invalid_as("", "should be at least 2"));
    }
    validate::required(&series.get("lastObservedTime"), out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::errors_of_create;
    use serde_json::json;

    fn event() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": "e", "namespace": "n"},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "n"},
            "message": "hello ", "type": "Normal", "reason": "R",
            "lastTimestamp": "1970-01-01T00:00:00Z", "count": 2,
            "source": {"component": "kubelet", "host": "h"},
        })
    }

    #[test]
    fn both_groups_show_one_object() {
        let to_new = Gvk::new(GROUP, "v1", "Event");
        let core = Event { new_names: false };
        let new = core.convert(event(), &to_new).unwrap();
        assert_eq!(new["regarding"]["name"], "p");
        assert_eq!(new["note"], "hello ");
        assert_eq!(new["apiVersion"], "events.k8s.io/v1");
        let back = core.convert(new.clone(), &Gvk::new("", "v1", "Event")).unwrap();
        assert_eq!(back, event());
        let fields = Event { new_names: true }.selectable_fields(&new);
        assert!(fields.contains(&("regarding.name", "p".to_owned())));
    }

    #[test]
    fn the_table_ends_with_the_name() {
        let cells =
            Event { new_names: false }.cells(&event(), "1970-01-01T00:03:00Z".parse().unwrap());
        let expected =
            json!(["3m", "Normal", "R", "pod/p", "", "kubelet, h", "hello", "<unknown>", 2, "e"]);
        assert_eq!(Value::from(cells), expected);
    }

    #[test]
    fn the_new_group_is_stricter() {
        let event = event();
        assert_eq!(errors_of_create(&Event { new_names: false }, &event), Vec::<String>::new());
        let texts = errors_of_create(&Event { new_names: true }, &event);
        assert!(texts.contains(&"eventTime: Required value".to_owned()), "{texts:?}");
        assert!(texts.contains(&"count: Invalid value: \"\": needs to be unset".to_owned()));
        let mut stray = event;
        stray["involvedObject"]["namespace"] = "other".into();
        assert_eq!(
            errors_of_create(&Event { new_names: false }, &stray),
            ["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"]
        );
    }
}
