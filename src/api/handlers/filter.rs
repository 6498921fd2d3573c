//! Which objects of a collection a list, watch or deletecollection means.
//!
//! Why labels are read without the rest: a list by label looks at every object of its range, and
//! most of an object's bytes need not become values for that.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::convert;
use crate::api::kind::Kind;
use crate::api::server::Call;
use crate::api::storage;
use crate::client::ListOptions;
use crate::object::selector::{FieldRequirement, Selector, parse_fields};
use crate::object::status::{Result, Status};
use crate::object::{Value, meta};
use crate::store::KeyRange;

/// The range of keys to look at, and what must hold of an object.
#[derive(Clone)]
pub struct Filter {
    /// The keys.
    pub range: KeyRange,
    kind: Arc<Kind>,
    labels: Selector,
    fields: Vec<FieldRequirement>,
}

#[derive(Deserialize)]
struct Labelled<'a> {
    #[serde(borrow)]
    metadata: Labels<'a>,
}

#[derive(Deserialize)]
struct Labels<'a> {
    #[serde(borrow, default)]
    labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

impl Filter {
    /// What `call` and its options mean.
    pub fn new(call: &Call, options: &ListOptions) -> Result<Self> {
        let kind = call.kind.clone();
        let labels = Selector::parse(&options.label_selector).map_err(Status::bad_request)?;
        let fields = parse_fields(&options.field_selector).map_err(Status::bad_request)?;
        check_fields(&kind, &fields)?;
        let (resource, group) = &kind.storage;
        let namespace = if kind.namespaced { call.attributes.namespace.as_str() } else { "" };
        let wanted = |field: &str| {
            fields.iter().find(|one| one.field == field && !one.negated).map(|one| &one.value)
        };
        let selected =
            wanted("metadata.namespace").filter(|_| kind.namespaced && namespace.is_empty());
        let namespace = selected.map_or(namespace, String::as_str).to_owned();
        let range = if kind.namespaced && namespace.is_empty() {
            KeyRange::prefix(storage::prefix(resource, group))
        } else if let Some(name) = wanted("metadata.name").filter(|name| !name.is_empty()) {
            KeyRange::key(storage::key(resource, group, &namespace, name))
        } else {
            KeyRange::prefix(storage::namespace_prefix(resource, group, &namespace))
        };
        Ok(Self { range, kind, labels, fields })
    }

    /// Whether every object of the range is meant.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    /// Whether these stored bytes are meant.
    pub fn matches(&self, stored: &[u8]) -> Result<bool> {
        if self.is_everything() {
            return Ok(true);
        }
        if self.fields.is_empty()
            && let Ok(object) = serde_json::from_slice::<Labelled<'_>>(stored)
        {
            let labels = object.metadata.labels;
            return Ok(self.labels.matches_by(|key| labels.get(key).map(Cow::as_ref)));
        }
        let object = convert::value(&self.kind, stored)?;
        Ok(self.matches_value(&object))
    }

    fn matches_value(&self, object: &Value) -> bool {
        if !self.labels.matches(meta::labels(object)) {
            return false;
        }
        if self.fields.is_empty() {
            return true;
        }
        let special = self.kind.strategy.selectable_fields(object);
        self.fields.iter().all(|need| {
            let value = match need.field.as_str() {
                "metadata.name" => meta::name(object),
                "metadata.namespace" => meta::namespace(object),
                field => special.iter().find(|(name, _)| *name == field).map_or("", |(_, v)| v),
            };
            (value == need.value) != need.negated
        })
    }
}

fn check_fields(kind: &Kind, fields: &[FieldRequirement]) -> Result<()> {
    let special = kind.strategy.selectable_names();
    for one in fields {
        let field = one.field.as_str();
        if matches!(field, "metadata.name" | "metadata.namespace") || special.contains(&field) {
            continue;
        }
        return Err(Status::bad_request(if special.is_empty() {
            format!(
                "{field:?} is not a known field selector: only \"metadata.name\", \
                 \"metadata.namespace\""
            )
        } else {
            format!("field label not supported: {field}")
        }));
    }
    Ok(())
}
