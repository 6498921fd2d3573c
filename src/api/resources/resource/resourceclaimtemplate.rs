//! ResourceClaimTemplate.

use super::super::declared::Declared;
use super::super::fill::child_mut;
use super::super::rules::Rule;

/// The ResourceClaimTemplate's strategy.
pub(in super::super) const RESOURCE_CLAIM_TEMPLATE: Declared = Declared {
    defaults: |object| {
        if let Some(spec) = child_mut(object, &["spec", "spec"]) {
            super::default_claim(spec);
        }
    },
    rules: &[("spec.spec", Rule::Check(super::check_claim))],
    immutable: &["spec"],
    ..Declared::NONE
};
