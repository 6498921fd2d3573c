//! The plug-ins, in the order in which filters run (upstream's default profile).
//!
//! Why cheap ones first: the first refusal ends a node's turn, and it is the one that is shown.

mod balanced_allocation;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod scheduling_gates;
mod taint_toleration;

use super::framework::Plugin;

/// Every plug-in, in order. Adding one is its file, its `mod` line and its line here.
pub fn all() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(scheduling_gates::SchedulingGates),
        Box::new(node_unschedulable::NodeUnschedulable),
        Box::new(node_name::NodeName),
        Box::new(taint_toleration::TaintToleration),
        Box::new(node_affinity::NodeAffinity),
        Box::new(node_ports::NodePorts),
        Box::new(node_resources_fit::Fit),
        Box::new(balanced_allocation::BalancedAllocation),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_plugin_has_a_name_of_its_own() {
        let names: Vec<_> = super::all().iter().map(|plugin| plugin.name()).collect();
        let unique: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }
}
