//! Keeps pods with `spec.schedulingGates` out of the queue.
//!
//! Why before the queue: a gated pod must cost nothing until its gates are gone (KEP-3521).

use crate::scheduler::framework::Plugin;
use crate::scheduler::pod::PodInfo;

pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Option<String> {
        let gates = pod.pod.spec.as_ref()?.scheduling_gates.as_ref()?;
        let names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
        (!names.is_empty()).then(|| format!("waiting for scheduling gates: [{}]", names.join(" ")))
    }
}
