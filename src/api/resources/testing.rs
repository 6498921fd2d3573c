//! Calls a strategy as the generic handlers do, for the tests of kinds.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::context::RequestContext;
use crate::api::kind::{Kind, Plain, Strategy, Write};
use crate::client::User;
use crate::object::{Gvk, Value};

fn with_write<T>(subresource: &str, call: impl FnOnce(&Write<'_>) -> T) -> T {
    let gvk = Gvk::new("", "v1", "Thing");
    let kind = Kind {
        gvk: gvk.clone(),
        resource: "things".to_owned(),
        singular: "thing".to_owned(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: true,
        verbs: Vec::new(),
        subresources: Vec::new(),
        storage: ("things".to_owned(), String::new()),
        storage_version: gvk,
        strategy: Arc::new(Plain),
        inert: None,
    };
    let request = RequestContext { id: String::new(), source: None, user_agent: String::new() };
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let user = user();
    call(&Write { kind: &kind, request: &request, user: &user, now, subresource })
}

fn user() -> User {
    User {
        name: "jane".to_owned(),
        uid: "7".to_owned(),
        groups: vec!["system:authenticated".to_owned()],
        extra: BTreeMap::new(),
    }
}

/// A new object as it would be stored.
pub(super) fn created(strategy: &dyn Strategy, mut object: Value) -> Value {
    strategy.default(&mut object);
    with_write("", |write| strategy.prepare_create(write, &mut object));
    object
}

/// A changed object as it would be stored.
pub(super) fn updated(strategy: &dyn Strategy, sub: &str, mut new: Value, old: &Value) -> Value {
    strategy.default(&mut new);
    with_write(sub, |write| match sub {
        "status" => strategy.prepare_status(write, &mut new, old),
        _ => strategy.prepare_update(write, &mut new, old),
    });
    new
}

/// The faults of a new object, as texts.
pub(super) fn errors_of_create(strategy: &dyn Strategy, object: &Value) -> Vec<String> {
    let errors = with_write("", |write| strategy.validate_create(write, object));
    errors.iter().map(ToString::to_string).collect()
}

/// The faults of a change, as texts.
pub(super) fn errors_of_update(
    strategy: &dyn Strategy,
    sub: &str,
    new: &Value,
    old: &Value,
) -> Vec<String> {
    let errors = with_write(sub, |write| strategy.validate_update(write, new, old));
    errors.iter().map(ToString::to_string).collect()
}
