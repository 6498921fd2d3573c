//! A node with its pods and what they ask for.
//!
//! Why sums of requests: they, not what is used, decide whether another pod fits.

use std::collections::BTreeMap;

use super::page::{Page, items, or_none, plain, since, text, texts, when};
use crate::client::ListOptions;
use crate::object::quantity::Quantity;
use crate::object::{Value, meta};
use crate::roles::ctl::session::Session;

const ROLE: &str = "node-role.kubernetes.io/";

/// A node.
pub async fn describe(session: &Session, object: &Value) -> anyhow::Result<Page> {
    let mut page = Page::default();
    page.field(0, "Name", meta::name(object));
    let labels = meta::labels(object).into_iter().flatten();
    let roles: Vec<&str> = labels.filter_map(|(name, _)| name.strip_prefix(ROLE)).collect();
    page.field(0, "Roles", or_none(&roles.join(",")));
    page.pairs("Labels", meta::at(object, &["metadata", "labels"]), "=");
    page.annotations(meta::at(object, &["metadata", "annotations"]));
    let created = when(meta::text(object, &["metadata", "creationTimestamp"]));
    page.field(0, "CreationTimestamp", created);
    let taints: Vec<String> = items(object, &["spec", "taints"])
        .map(|taint| match text(taint, "value") {
            "" => format!("{}:{}", text(taint, "key"), text(taint, "effect")),
            value => format!("{}={value}:{}", text(taint, "key"), text(taint, "effect")),
        })
        .collect();
    page.many("Taints", &taints);
    let closed = meta::at(object, &["spec", "unschedulable"]).and_then(Value::as_bool);
    page.field(0, "Unschedulable", closed.unwrap_or(false));
    lease(session, object, &mut page).await?;
    state(object, &mut page);
    for (title, field) in [("PodCIDR", "podCIDR"), ("ProviderID", "providerID")] {
        page.given(0, title, meta::text(object, &["spec", field]));
        if field == "podCIDR" {
            page.given(0, "PodCIDRs", &texts(object, &["spec", "podCIDRs"]).join(","));
        }
    }
    let kind = session.kind("pods").await?;
    let fields = format!(
        "spec.nodeName={},status.phase!=Failed,status.phase!=Succeeded",
        meta::name(object)
    );
    let options = ListOptions { field_selector: fields, ..ListOptions::default() };
    let (pods, _) = session.list(kind, &session.target(kind, "", ""), &options).await?;
    resources(object, &pods, &mut page);
    Ok(page)
}

async fn lease(session: &Session, object: &Value, page: &mut Page) -> anyhow::Result<()> {
    let kind = session.kind("leases.coordination.k8s.io").await?;
    let target = session.target(kind, "kube-node-lease", meta::name(object));
    match session.get(&target).await {
        Err(error) => page.field(0, "Lease", format!("Failed to get lease: {}", error.message)),
        Ok(lease) => {
            let spec = |field: &str| meta::text(&lease, &["spec", field]).to_owned();
            page.put(0, "Lease:");
            let holder = spec("holderIdentity");
            page.field(1, "HolderIdentity", if holder.is_empty() { "<unset>" } else { &holder });
            page.field(1, "AcquireTime", when(&spec("acquireTime")));
            page.field(1, "RenewTime", when(&spec("renewTime")));
        }
    }
    Ok(())
}

fn state(object: &Value, page: &mut Page) {
    let mut conditions = items(object, &["status", "conditions"]).peekable();
    if conditions.peek().is_some() {
        page.put(0, "Conditions:");
        let names = "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage";
        page.put(1, names);
        page.put(1, "----\t------\t-----------------\t------------------\t------\t-------");
        for one in conditions {
            let [kind, state, reason, message] =
                ["type", "status", "reason", "message"].map(|field| text(one, field));
            let [beat, change] =
                ["lastHeartbeatTime", "lastTransitionTime"].map(|field| when(text(one, field)));
            page.put(1, &format!("{kind} \t{state} \t{beat} \t{change} \t{reason} \t{message}"));
        }
    }
    page.put(0, "Addresses:");
    for address in items(object, &["status", "addresses"]) {
        page.field(1, text(address, "type"), text(address, "address"));
    }
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        if let Some(amounts) = meta::at(object, &["status", field]).and_then(Value::as_object) {
            page.put(0, &format!("{title}:"));
            amounts.iter().for_each(|(name, amount)| page.field(1, name, plain(amount)));
        }
    }
    page.put(0, "System Info:");
    for (title, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ] {
        page.field(1, title, meta::text(object, &["status", "nodeInfo", field]));
    }
}

type Amounts = BTreeMap<String, Quantity>;

fn add(to: &mut Amounts, name: &str, amount: Quantity) {
    let sum = match to.get(name) {
        Some(before) => before.plus(&amount),
        None => amount,
    };
    to.insert(name.to_owned(), sum);
}

fn amounts(of: &Value, field: &str) -> Amounts {
    let amounts = meta::at(of, &["resources", field]).and_then(Value::as_object);
    let amounts = amounts.into_iter().flatten();
    let read = |(name, amount): (&String, &Value)| {
        Some((name.clone(), Quantity::parse(&plain(amount)).ok()?))
    };
    amounts.filter_map(read).collect()
}

/// What a pod asks for: its containers and sidecars together, or what an init container needs
/// beside the sidecars before it, whichever is more.
fn asked(pod: &Value, field: &str) -> Amounts {
    let mut sum = Amounts::new();
    for container in items(pod, &["spec", "containers"]) {
        amounts(container, field).into_iter().for_each(|(name, of)| add(&mut sum, &name, of));
    }
    let mut sidecars = Amounts::new();
    let mut most = Amounts::new();
    for container in items(pod, &["spec", "initContainers"]) {
        let sidecar = text(container, "restartPolicy") == "Always";
        for (name, of) in amounts(container, field) {
            let mut beside = of;
            if let Some(before) = sidecars.get(&name) {
                beside = beside.plus(before);
            }
            if sidecar {
                add(&mut sidecars, &name, of);
                add(&mut sum, &name, of);
            }
            if most.get(&name).is_none_or(|most| most.millis() < beside.millis()) {
                most.insert(name, beside);
            }
        }
    }
    for (name, most) in most {
        if sum.get(&name).is_none_or(|sum| sum.millis() < most.millis()) {
            sum.insert(name, most);
        }
    }
    sum
}

fn share(of: &Amounts, name: &str, allocatable: &Value) -> String {
    let zero = Some(Quantity::ZERO);
    let Some(amount) = of.get(name).cloned().or(zero) else { return String::new() };
    let whole = Quantity::parse(&plain(&allocatable[name])).map_or(0, |all| all.millis());
    let percent = match whole {
        0 => 0,
        whole => (amount.millis() as i128 * 100 / i128::from(whole)) as i64,
    };
    format!("{amount} ({percent}%)")
}

fn resources(object: &Value, pods: &[Value], page: &mut Page) {
    let allocatable = &object["status"]["allocatable"];
    page.field(0, "Non-terminated Pods", format!("({} in total)", pods.len()));
    let names = "CPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge";
    page.put(1, &format!("Namespace\tName\t\t{names}"));
    let lines = "------------\t----------\t---------------\t-------------\t---";
    page.put(1, &format!("---------\t----\t\t{lines}"));
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for pod in pods {
        let (wants, may) = (asked(pod, "requests"), asked(pod, "limits"));
        let cells: Vec<String> = ["cpu", "memory"]
            .iter()
            .flat_map(|name| [share(&wants, name, allocatable), share(&may, name, allocatable)])
            .collect();
        let age = since(meta::text(pod, &["metadata", "creationTimestamp"]));
        let place = format!("{}\t{}", meta::namespace(pod), meta::name(pod));
        page.put(1, &format!("{place}\t\t{}\t{age}", cells.join("\t")));
        wants.into_iter().for_each(|(name, of)| add(&mut requests, &name, of));
        may.into_iter().for_each(|(name, of)| add(&mut limits, &name, of));
    }
    page.put(0, "Allocated resources:");
    page.put(1, "(Total limits may be over 100 percent, i.e., overcommitted.)");
    page.put(1, "Resource\tRequests\tLimits");
    page.put(1, "--------\t--------\t------");
    let known = ["cpu", "memory", "ephemeral-storage"];
    let others = allocatable.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let others = others.filter(|name| !known.contains(name) && *name != "pods");
    for name in known.into_iter().chain(others) {
        let (wants, may) = (share(&requests, name, allocatable), share(&limits, name, allocatable));
        page.put(1, &format!("{name}\t{wants}\t{may}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_large_init_container_counts_instead_of_the_containers() {
        let cpu = |amount: &str| json!({"resources": {"requests": {"cpu": amount}}});
        let pod = json!({"spec": {
            "containers": [cpu("100m"), cpu("200m")], "initContainers": [cpu("1")]}});
        assert_eq!(asked(&pod, "requests")["cpu"].millis(), 1000);
        let pod = json!({"spec": {
            "containers": [cpu("100m"), cpu("200m")], "initContainers": [cpu("250m")]}});
        assert_eq!(asked(&pod, "requests")["cpu"].millis(), 300);
    }
}
