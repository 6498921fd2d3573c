//! Figures of the request chain for `/metrics`, under upstream's names.
//!
//! Why counted here and not in handlers: every answer leaves through the chain, refusals too.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use parking_lot::Mutex;

use crate::api::router::Route;
use crate::api::server::Metrics;

/// Upper bounds of the duration histogram in seconds (a part of upstream's).
const BUCKETS: [f64; 12] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 2.0, 5.0, 15.0, 60.0];
/// Series of one figure; the requests beyond share the series of no resource.
const SERIES_MAX: usize = 2_000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

impl std::fmt::Display for Series {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",\
             version=\"{}\"",
            self.group, self.resource, self.scope, self.subresource, self.verb, self.version
        )
    }
}

#[derive(Default)]
struct Durations {
    counts: [u64; BUCKETS.len()],
    sum: f64,
    all: u64,
}

/// Counters of requests.
#[derive(Default)]
pub struct Figures {
    totals: Mutex<BTreeMap<(Series, u16), u64>>,
    durations: Mutex<BTreeMap<Series, Durations>>,
}

impl Figures {
    /// Counts one answered request. `known` says whether the resource is served: names that clients
    /// make up must not become series.
    pub fn count(&self, route: &Route, known: bool, code: u16, took: Option<Duration>) {
        let mut series = series(route, known);
        let mut totals = self.totals.lock();
        if totals.len() >= SERIES_MAX && !totals.contains_key(&(series.clone(), code)) {
            series = self::series(&Route { verb: route.verb.clone(), ..Route::default() }, false);
        }
        *totals.entry((series.clone(), code)).or_default() += 1;
        drop(totals);
        let Some(took) = took else { return };
        let seconds = took.as_secs_f64();
        let mut durations = self.durations.lock();
        let one = durations.entry(series).or_default();
        for (count, _) in one.counts.iter_mut().zip(BUCKETS).filter(|(_, most)| seconds <= *most) {
            *count += 1;
        }
        one.sum += seconds;
        one.all += 1;
    }
}

fn series(route: &Route, known: bool) -> Series {
    let gvr = route.gvr.as_ref().filter(|_| known);
    let scope = match (gvr, route.name.as_str(), route.namespace.as_str()) {
        (None, ..) => "",
        (Some(_), "", "") => "cluster",
        (Some(_), "", _) => "namespace",
        _ => "resource",
    };
    let method = match route.verb.as_str() {
        verb @ ("get" | "list" | "watch" | "delete" | "deletecollection" | "patch") => verb,
        "create" | "post" => "post",
        "update" | "put" => "put",
        _ => "other",
    };
    Series {
        verb: method.to_uppercase(),
        group: gvr.map(|gvr| gvr.group.clone()).unwrap_or_default(),
        version: gvr.map(|gvr| gvr.version.clone()).unwrap_or_default(),
        resource: gvr.map(|gvr| gvr.resource.clone()).unwrap_or_default(),
        subresource: gvr.map(|_| route.subresource.clone()).unwrap_or_default(),
        scope,
    }
}

impl Metrics for Figures {
    fn write(&self, out: &mut String) {
        // Writing to a text cannot fail.
        let _ = self.write_all(out);
    }
}

impl Figures {
    fn write_all(&self, out: &mut String) -> std::fmt::Result {
        const TOTAL: &str = "apiserver_request_total";
        const TOOK: &str = "apiserver_request_duration_seconds";
        writeln!(out, "# HELP {TOTAL} Requests answered, by verb, resource and code.")?;
        writeln!(out, "# TYPE {TOTAL} counter")?;
        for ((series, code), count) in &*self.totals.lock() {
            writeln!(out, "{TOTAL}{{code=\"{code}\",{series}}} {count}")?;
        }
        writeln!(out, "# HELP {TOOK} How long requests took that are not long-running.")?;
        writeln!(out, "# TYPE {TOOK} histogram")?;
        for (series, one) in &*self.durations.lock() {
            for (most, count) in BUCKETS.iter().zip(one.counts) {
                writeln!(out, "{TOOK}_bucket{{{series},le=\"{most}\"}} {count}")?;
            }
            writeln!(out, "{TOOK}_bucket{{{series},le=\"+Inf\"}} {}", one.all)?;
            writeln!(out, "{TOOK}_sum{{{series}}} {}", one.sum)?;
            writeln!(out, "{TOOK}_count{{{series}}} {}", one.all)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Gvr;

    #[test]
    fn requests_are_counted_by_resource_and_made_up_names_are_not() {
        let figures = Figures::default();
        let route = |resource: &str| Route {
            verb: "list".to_owned(),
            gvr: Some(Gvr::new("", "v1", resource)),
            namespace: "a".to_owned(),
            ..Route::default()
        };
        figures.count(&route("pods"), true, 200, Some(Duration::from_millis(30)));
        figures.count(&route("pods"), true, 200, None);
        figures.count(&route("x1"), false, 404, None);
        let mut out = String::new();
        figures.write(&mut out);
        for line in [
            "apiserver_request_total{code=\"200\",group=\"\",resource=\"pods\",scope=\"namespace\",\
             subresource=\"\",verb=\"LIST\",version=\"v1\"} 2",
            "apiserver_request_total{code=\"404\",group=\"\",resource=\"\",scope=\"\",\
             subresource=\"\",verb=\"LIST\",version=\"\"} 1",
        ] {
            assert!(out.lines().any(|have| have == line), "{line}\n{out}");
        }
        assert!(out.contains("verb=\"LIST\",version=\"v1\",le=\"0.05\"} 1"), "{out}");
        assert!(out.contains("verb=\"LIST\",version=\"v1\",le=\"0.025\"} 0"), "{out}");
    }
}
