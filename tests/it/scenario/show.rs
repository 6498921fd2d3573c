//! How scenarios show objects: one line each, without what differs from run to run.

use std::collections::BTreeMap;

use clusterd::object::{Value, meta};

/// Turns generated parts of names into stable ones.
#[derive(Default)]
pub struct Names {
    /// Hashes of pod templates in order of appearance.
    hashes: Vec<String>,
}

impl Names {
    /// Notes the hashes of sets.
    pub fn learn(&mut self, sets: &[Value]) {
        let mut sets: Vec<&Value> = sets.iter().collect();
        let born = |set: &&Value| {
            let labels = ["metadata", "annotations", "deployment.kubernetes.io/revision"];
            let first = ["metadata", "annotations", "deployment.kubernetes.io/revision-history"];
            let history = meta::text(set, &first).split(',').next().unwrap_or("").to_owned();
            let revision = meta::text(set, &labels).to_owned();
            let text = if history.is_empty() { revision } else { history };
            text.parse::<i64>().unwrap_or(0)
        };
        sets.sort_by_key(born);
        for set in sets {
            let hash = meta::text(set, &["metadata", "labels", "pod-template-hash"]);
            if !hash.is_empty() && !self.hashes.iter().any(|known| known == hash) {
                self.hashes.push(hash.to_owned());
            }
        }
    }

    fn stable(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (at, hash) in self.hashes.iter().enumerate() {
            text = text.replace(hash.as_str(), &format!("<{}>", at + 1));
        }
        text
    }

    /// A list of objects; pods of one origin and state share a line.
    pub fn table(&self, resource: &str, objects: &[Value]) -> String {
        let mut lines: Vec<(String, usize)> = Vec::new();
        for object in objects {
            let line = self.stable(&format!("{} {}", name(object), state(resource, object)));
            match lines.iter_mut().find(|(known, _)| *known == line) {
                Some((_, count)) => *count += 1,
                None => lines.push((line, 1)),
            }
        }
        lines.sort();
        let show = |(line, count): (String, usize)| match count {
            1 => format!("{}\n", line.trim_end()),
            _ => format!("{} ({count})\n", line.trim_end()),
        };
        lines.into_iter().map(show).collect()
    }

    /// All events, in order of the first of their kind, with how often each came.
    pub fn events(&self, events: &[Value]) -> String {
        let mut sorted: Vec<&Value> = events.iter().collect();
        sorted.sort_by_key(|event| {
            let uid = meta::text(event, &["metadata", "resourceVersion"]);
            (meta::text(event, &["firstTimestamp"]).to_owned(), uid.parse::<u64>().unwrap_or(0))
        });
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        let mut order = Vec::new();
        for event in sorted {
            let about = &event["involvedObject"];
            let text = |path: &[&str]| meta::text(event, path).to_owned();
            let message = mask(&text(&["message"]));
            let line = self.stable(&format!(
                "{} {} {}/{}: {message}",
                text(&["type"]),
                text(&["reason"]),
                meta::text(about, &["kind"]).to_lowercase(),
                meta::text(about, &["name"]),
            ));
            if !counts.contains_key(&line) {
                order.push(line.clone());
            }
            *counts.entry(line).or_default() += event["count"].as_i64().unwrap_or(1);
        }
        let show = |line: String| match counts[&line] {
            1 => format!("{line}\n"),
            count => format!("{line} ({count})\n"),
        };
        order.into_iter().map(show).collect()
    }
}

/// The name in "Created pod: NAME" and the like without its generated end.
fn mask(message: &str) -> String {
    for start in ["Created pod: ", "Deleted pod: "] {
        if let Some(name) = message.strip_prefix(start) {
            let stem = name.rsplit_once('-').map_or(name, |(stem, _)| stem);
            return format!("{start}{stem}-*");
        }
    }
    message.to_owned()
}

fn name(object: &Value) -> String {
    let namespace = match meta::namespace(object) {
        "" | "default" => String::new(),
        namespace => format!("{namespace}/"),
    };
    match meta::text(object, &["metadata", "generateName"]) {
        "" => format!("{namespace}{}", meta::name(object)),
        prefix => format!("{namespace}{prefix}*"),
    }
}

fn number(object: &Value, path: &[&str]) -> i64 {
    meta::at(object, path).and_then(Value::as_i64).unwrap_or(0)
}

fn conditions(object: &Value) -> String {
    let list = meta::at(object, &["status", "conditions"]).and_then(Value::as_array);
    let shown = list.into_iter().flatten().map(|condition| {
        let text = |field: &str| meta::text(condition, &[field]).to_owned();
        format!(" {}={}:{}", text("type"), text("status"), text("reason"))
    });
    shown.collect()
}

fn state(resource: &str, object: &Value) -> String {
    let status = |field: &str| number(object, &["status", field]);
    let ending = if meta::is_deleting(object) { " deleting" } else { "" };
    let text = match resource {
        "pods" => {
            let ready = conditions(object).contains("Ready=True");
            let ready = if ready { " ready" } else { "" };
            format!("{}{ready}", meta::text(object, &["status", "phase"]))
        }
        "replicasets" | "replicationcontrollers" => {
            let revision = "deployment.kubernetes.io/revision";
            let revision = meta::text(object, &["metadata", "annotations", revision]);
            let wanted = number(object, &["spec", "replicas"]);
            let (have, available) = (status("replicas"), status("availableReplicas"));
            let owned = if meta::owners(object).is_empty() { "" } else { " owned" };
            let revision = match revision {
                "" => String::new(),
                revision => format!(" revision={revision}"),
            };
            format!(
                "{wanted} wanted, {have} there, {available} available{revision}{owned}{}",
                conditions(object)
            )
        }
        "deployments" => format!(
            "{} wanted, {} there, {} updated, {} available{}",
            number(object, &["spec", "replicas"]),
            status("replicas"),
            status("updatedReplicas"),
            status("availableReplicas"),
            conditions(object)
        ),
        "jobs" => {
            let indexes = |field: &str| match meta::text(object, &["status", field]) {
                "" => String::new(),
                indexes => format!(" {field}={indexes}"),
            };
            format!(
                "{} active, {} succeeded, {} failed{}{}{}",
                status("active"),
                status("succeeded"),
                status("failed"),
                indexes("completedIndexes"),
                indexes("failedIndexes"),
                conditions(object)
            )
        }
        "namespaces" => {
            let told = conditions(object);
            let told: Vec<&str> =
                told.split_whitespace().filter(|it| it.contains("=True:")).collect();
            format!("{} {}", meta::text(object, &["status", "phase"]), told.join(" "))
        }
        "endpointslices" => {
            let list = object["endpoints"].as_array().cloned().unwrap_or_default();
            let ready = list.iter().filter(|it| it["conditions"]["ready"] == true).count();
            format!("{} endpoints, {ready} ready", list.len())
        }
        "endpoints" => {
            let subsets = object["subsets"].as_array().cloned().unwrap_or_default();
            let count = |field: &str| -> usize {
                subsets.iter().filter_map(|it| it[field].as_array()).map(Vec::len).sum()
            };
            format!("{} ready, {} not", count("addresses"), count("notReadyAddresses"))
        }
        _ => String::new(),
    };
    text + ending
}
