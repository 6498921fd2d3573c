//! Address families of a Service: which it gets, which it may ask for, what may change.
//! Upstream's `initIPFamilyFields` and `ValidateServiceClusterIPsRelatedFields`, with its texts.

use std::net::IpAddr;

use super::addresses::Ranges;
use super::spec::{NONE, Spec};
use crate::object::status::FieldError;

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";
const IPS: &str = "spec.clusterIPs";
const FAMILIES: &str = "spec.ipFamilies";
const POLICY: &str = "spec.ipFamilyPolicy";

/// The family of an address.
pub(super) fn family_of(address: &str) -> Option<&'static str> {
    Some(if address.parse::<IpAddr>().ok()?.is_ipv4() { "IPv4" } else { "IPv6" })
}

fn other(family: &str) -> String {
    if family == "IPv4" { "IPv6".to_owned() } else { "IPv4".to_owned() }
}

/// Fills in families and policy, or says what is wrong with what was given.
pub(super) fn complete(
    new: &mut Spec,
    old: Option<&Spec>,
    ranges: &Ranges,
) -> Result<(), Vec<FieldError>> {
    if new.is_external_name() || old.is_some_and(|old| keeps_preferred(new, old)) {
        return Ok(());
    }
    let headless_alone = new.cluster_ip == NONE && !new.has_selector;
    if new.policy.is_empty() {
        new.policy = match old.map(|old| old.policy.as_str()).unwrap_or("") {
            "" if headless_alone => REQUIRE,
            "" => SINGLE,
            policy => policy,
        }
        .to_owned();
    }
    refuse(check_fields(new))?;
    refuse(settle_reduction(new, old))?;
    refuse(add_families_of_addresses(new, ranges))?;
    if headless_alone {
        if new.families.is_empty() {
            new.families = vec![ranges.default_family().to_owned()];
        }
        if new.families.len() == 1 && new.policy != SINGLE {
            new.families.push(other(&new.families[0]));
        }
        return Ok(());
    }
    let configured = ranges.families();
    let mut errors = Vec::new();
    if new.policy == REQUIRE && configured.len() < 2 {
        errors.push(FieldError::invalid(
            POLICY,
            new.policy.as_str(),
            "this cluster is not configured for dual-stack services",
        ));
    }
    for (at, family) in new.families.iter().enumerate() {
        if !configured.contains(&family.as_str()) {
            let field = format!("{FAMILIES}[{at}]");
            let detail = "not configured on this cluster";
            errors.push(FieldError::invalid(field, family.as_str(), detail));
        }
    }
    refuse(errors)?;
    if new.families.is_empty() {
        new.families = vec![ranges.default_family().to_owned()];
    }
    if new.policy != SINGLE && new.families.len() == 1 && configured.len() == 2 {
        new.families.push(other(&new.families[0]));
    }
    Ok(())
}

fn refuse(errors: Vec<FieldError>) -> Result<(), Vec<FieldError>> {
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Whether an update leaves a Service that prefers two families as it is.
fn keeps_preferred(new: &Spec, old: &Spec) -> bool {
    new.policy == PREFER
        && (old.policy.is_empty() || old.policy == PREFER)
        && new.kind == old.kind
        && new.cluster_ips == old.cluster_ips
        && new.families == old.families
}

/// Drops the second address and family where the policy says one, or demands that it says so.
fn settle_reduction(new: &mut Spec, old: Option<&Spec>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let policy = |detail: &str, policy: &str| FieldError::invalid(POLICY, policy, detail);
    if let Some(old) = old {
        if new.policy == SINGLE {
            if old.cluster_ips == new.cluster_ips {
                new.cluster_ips.truncate(1);
            }
            if old.families == new.families {
                new.families.truncate(1);
            }
        } else {
            let is_less = |new: &[String], old: &[String]| !new.is_empty() && new.len() < old.len();
            if is_less(&new.cluster_ips, &old.cluster_ips) {
                let detail = "must be 'SingleStack' to release the secondary cluster IP";
                errors.push(policy(detail, &new.policy));
            }
            if is_less(&new.families, &old.families) {
                let detail = "must be 'SingleStack' to release the secondary IP family";
                errors.push(policy(detail, &new.policy));
            }
        }
    }
    if new.policy == SINGLE {
        for (count, what) in
            [(new.cluster_ips.len(), "cluster IPs"), (new.families.len(), "IP families")]
        {
            if count == 2 {
                let detail = format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are \
                     specified"
                );
                errors.push(policy(&detail, &new.policy));
            }
        }
    }
    errors
}

fn add_families_of_addresses(new: &mut Spec, ranges: &Ranges) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, address) in new.cluster_ips.iter().enumerate() {
        let Some(family) = family_of(address) else { break };
        if at < new.families.len() {
            continue;
        }
        if ranges.families().contains(&family) {
            new.families.push(family.to_owned());
        } else {
            let detail = format!("{family} is not configured on this cluster");
            let field = format!("{IPS}[{at}]");
            errors.push(FieldError::invalid(field, new.cluster_ips.clone(), detail));
        }
    }
    errors
}

/// What is wrong with addresses, families and policy by themselves.
fn check_fields(new: &Spec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let ips = |detail: &str| FieldError::invalid(IPS, new.cluster_ips.clone(), detail);
    match (new.cluster_ip.as_str(), new.cluster_ips.first()) {
        ("", Some(_)) => {
            errors.push(ips("must be empty when `clusterIP` is not specified"));
        }
        ("", None) => {}
        (_, None) => errors.push(FieldError::required(IPS, "")),
        (one, Some(first)) if one != first => {
            errors.push(ips("first value must match `clusterIP`"));
        }
        _ => {}
    }
    for (at, family) in new.families.iter().enumerate() {
        let field = format!("{FAMILIES}[{at}]");
        if !["IPv4", "IPv6"].contains(&family.as_str()) {
            let allowed = ["IPv4", "IPv6"];
            errors.push(FieldError::not_supported(field.as_str(), family.as_str(), &allowed));
        }
        if new.families[..at].contains(family) {
            errors.push(FieldError::duplicate(field, family.as_str()));
        }
    }
    let policies = [SINGLE, PREFER, REQUIRE];
    if !policies.contains(&new.policy.as_str()) {
        errors.push(FieldError::not_supported(POLICY, new.policy.as_str(), &policies));
    }
    let before = errors.len();
    for (at, address) in new.cluster_ips.iter().enumerate() {
        if at == 0 && address == NONE {
            if new.cluster_ips.len() > 1 {
                errors.push(ips("'None' must be the first and only value"));
            }
        } else if family_of(address).is_none() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(FieldError::invalid(format!("{IPS}[{at}]"), address.as_str(), detail));
        }
    }
    let has_bad_addresses = errors.len() > before;
    if new.cluster_ips.len() > 2 {
        errors.push(ips("may only hold up to 2 values"));
    }
    if has_bad_addresses {
        return errors;
    }
    if let [one, two, ..] = new.cluster_ips.as_slice()
        && family_of(one) == family_of(two)
    {
        errors.push(ips("may specify no more than one IP for each IP family"));
    }
    for (at, (address, family)) in new.cluster_ips.iter().zip(&new.families).enumerate() {
        if !new.is_headless() && family_of(address).is_some_and(|own| own != family) {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{at}]`");
            errors.push(FieldError::invalid(format!("{IPS}[{at}]"), address.as_str(), detail));
        }
    }
    errors
}

/// What an update may not do to addresses and families.
pub(super) fn check_change(new: &Spec, old: &Spec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if new.is_external_name() || old.is_external_name() {
        return errors;
    }
    if !(old.is_headless() && new.is_headless()) {
        check_list(&mut errors, IPS, "clusterIP", &new.cluster_ips, &old.cluster_ips, new);
    }
    if !old.is_headless() && !new.is_headless() {
        check_list(&mut errors, FAMILIES, "ipFamily", &new.families, &old.families, new);
    }
    errors
}

fn check_list(
    errors: &mut Vec<FieldError>,
    field: &str,
    what: &str,
    new: &[String],
    old: &[String],
    spec: &Spec,
) {
    let wrong = |at: usize, detail: &str| {
        FieldError::invalid(format!("{field}[{at}]"), new.to_vec(), detail)
    };
    const FIXED: &str = "may not change once set";
    if new.len() == old.len() {
        for (at, (new, old)) in new.iter().zip(old).enumerate() {
            if new != old {
                errors.push(wrong(if what == "ipFamily" { 0 } else { at }, FIXED));
            }
        }
        return;
    }
    if new.len() < old.len() && spec.cluster_ips.is_empty() {
        errors.push(wrong(0, &format!("primary {what} can not be unset")));
    }
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && new != old
    {
        errors.push(wrong(0, FIXED));
    }
    if new.len() < old.len() && new.len() == 1 && spec.policy != SINGLE {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        errors.push(FieldError::invalid(POLICY, spec.policy.as_str(), detail));
    }
}
