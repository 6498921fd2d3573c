//! ServiceCIDR.
//!
//! Why its ranges only grow by a second family: addresses of Services lie in them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::json;

use super::super::columns::{AGE, col, texts};
use super::super::field::{Errors, Field};
use super::super::{names, validate};
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::Value;
use crate::object::status::FieldError;

/// The ServiceCIDR's strategy.
pub(in super::super) struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn prepare_create(&self, _write: &Write<'_>, object: &mut Value) {
        object["status"] = json!({});
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        let root = Field::root(object);
        let spec = root.get("spec");
        check(&spec.get("cidrs"), &mut out);
        out
    }

    fn validate_update(&self, write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        if write.subresource == "status" {
            return out;
        }
        let root = Field::root(new);
        let spec = root.get("spec");
        let cidrs = spec.get("cidrs");
        let (now, before) = (texts(new, &["spec", "cidrs"]), texts(old, &["spec", "cidrs"]));
        let grows = before.len() == 1 && now.len() == 2;
        if now.len() != before.len() && !grows {
            out.push(cidrs.invalid(validate::IMMUTABLE));
            return out;
        }
        for (at, _) in before.iter().enumerate().filter(|(at, one)| now[*at] != **one) {
            out.push(cidrs.index(at).invalid(validate::IMMUTABLE));
        }
        if grows {
            check(&cidrs, &mut out);
        }
        out
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[col("CIDRs"), AGE];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cidrs = texts(object, &["spec", "cidrs"]).join(",");
        vec![cidrs.into(), age(object, now).into()]
    }
}

fn check(cidrs: &Field, out: &mut Errors) {
    if cidrs.is_empty() {
        out.push(cidrs.required("at least one CIDR required"));
    }
    if cidrs.len() > 2 {
        out.push(cidrs.invalid("may only hold up to 2 values"));
    }
    cidrs.items().for_each(|cidr| validate::format(&cidr, names::cidr, out));
    let families: BTreeSet<bool> = cidrs
        .items()
        .filter_map(|cidr| Some(names::parse_cidr(cidr.text())?.0.is_ipv4()))
        .collect();
    if cidrs.len() == 2 && families.len() == 1 {
        out.push(cidrs.invalid(
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
             2001:db8::/64",
        ));
    }
}
