//! A strategy that is nothing but data: for kinds without a rule that needs code.
//!
//! Why: two thirds of the kinds are names, a few rules, a few immutable fields and columns.

use jiff::Timestamp;

use super::columns::{AGE, Cell, cells};
use super::fill::selectable;
use super::names::{self, Format};
use super::rules::{Rules, check, check_immutable};
use crate::api::kind::{Column, Strategy, Write};
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// A kind in data.
#[derive(Clone, Copy)]
pub(super) struct Declared {
    /// How its name must look.
    pub(super) name: Format,
    /// What a new or changed object must be like.
    pub(super) rules: Rules,
    /// What a changed status must be like.
    pub(super) status_rules: Rules,
    /// What may not change.
    pub(super) immutable: &'static [&'static str],
    /// The defaults that depend on nothing else.
    pub(super) defaults: fn(&mut Value),
    /// Does `metadata.generation` count its changes?
    pub(super) generation: bool,
    /// May an update come without a resourceVersion?
    pub(super) unconditional: bool,
    /// Does a PUT create it?
    pub(super) create_on_update: bool,
    /// The status of a new object.
    pub(super) new_status: fn() -> Option<Value>,
    /// Table columns after Name, and their cells.
    pub(super) columns: &'static [Column],
    pub(super) cells: &'static [Cell],
    /// (name, path) of further fields that a selector may name.
    pub(super) selectable: &'static [&'static str],
}

impl Declared {
    /// A kind with a DNS subdomain for its name and nothing else.
    pub(super) const NONE: Self = Self {
        name: names::dns_subdomain,
        rules: &[],
        status_rules: &[],
        immutable: &[],
        defaults: |_| {},
        generation: false,
        unconditional: true,
        create_on_update: false,
        new_status: || None,
        columns: &[AGE],
        cells: &[Cell::Age],
        selectable: &[],
    };
}

impl Strategy for Declared {
    fn default(&self, object: &mut Value) {
        (self.defaults)(object);
    }

    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        match (self.new_status)() {
            Some(status) => meta::set(object, &["status"], status),
            None => drop(meta::remove(object, &["status"])),
        }
    }

    fn counts_generation(&self) -> bool {
        self.generation
    }

    fn allows_unconditional_update(&self) -> bool {
        self.unconditional
    }

    fn allows_create_on_update(&self) -> bool {
        self.create_on_update
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        check(object, self.rules)
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        if write.subresource == "status" {
            return check(new, self.status_rules);
        }
        let mut out = check(new, self.rules);
        check_immutable(new, old, self.immutable, &mut out);
        out
    }

    fn check_name(&self, name: &str) -> Option<String> {
        names::first(self.name, name)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        selectable(object, self.selectable)
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        self.selectable
    }

    fn columns(&self) -> &'static [Column] {
        self.columns
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, self.cells, now)
    }
}
