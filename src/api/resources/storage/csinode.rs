//! CSINode.

use super::super::columns::{AGE, Cell, int};
use super::super::declared::Declared;
use super::super::field::{Errors, Field};
use super::super::rules::Rule;
use super::super::{names, validate};

const NODE_ID_BYTES_MAX: usize = 256;

/// The CSINode's strategy.
pub(in super::super) const CSI_NODE: Declared = Declared {
    rules: &[("spec.drivers", Rule::Check(drivers))],
    unconditional: false,
    columns: &[int("Drivers"), AGE],
    cells: &[Cell::Count(&["spec", "drivers"]), Cell::Age],
    ..Declared::NONE
};

fn drivers(list: &Field, out: &mut Errors) {
    for (at, driver) in list.items().enumerate() {
        let (name, id) = (driver.get("name"), driver.get("nodeID"));
        validate::required_format(&name, names::dns_subdomain, out);
        if list.items().take(at).any(|other| other.get("name").text() == name.text()) {
            out.push(name.duplicate());
        }
        validate::required(&id, out);
        if id.text().len() > NODE_ID_BYTES_MAX {
            out.push(id.invalid(format!("must be {NODE_ID_BYTES_MAX} characters or less")));
        }
        validate::non_negative(&driver.get("allocatable").get("count"), out);
        let keys = driver.get("topologyKeys");
        keys.items().for_each(|key| validate::format(&key, names::qualified_name, out));
    }
}
