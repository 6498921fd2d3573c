//! From a method and a path to what is asked for.
//!
//! Why a function over path segments: authorization, admission, metrics and dispatch all need the
//! same reading of a path (upstream's `RequestInfo`), also for resources that nobody serves.

use http::Method;

use crate::object::Gvr;

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// get, list, watch, create, …; the method in lower case for other paths.
    pub verb: String,
    /// The resource; `None` for other paths.
    pub gvr: Option<Gvr>,
    /// "" for cluster scope.
    pub namespace: String,
    /// "" for collections.
    pub name: String,
    /// "" or the subresource.
    pub subresource: String,
    /// What follows the subresource (the path behind `…/proxy`), with its leading slash.
    pub rest: String,
}

/// Subresources of a namespace; anything else behind its name is a resource in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Reads a request line. `watch` is whether the query asks for one, `named` the name that a field
/// selector demands.
pub fn route(method: &Method, path: &str, watch: bool, named: Option<&str>) -> Route {
    let other = || Route { verb: method.as_str().to_lowercase(), ..Route::default() };
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let all = parts.len();
    let (group, version, mut parts) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return other(),
    };
    let by_path = parts[0] == "watch" && parts.len() > 1;
    if by_path {
        parts = &parts[1..];
    }
    let mut route = Route { verb: verb(method).to_owned(), ..Route::default() };
    if parts[0] == "namespaces" && parts.len() > 1 {
        decode(parts[1]).clone_into(&mut route.namespace);
        if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
            parts = &parts[2..];
        }
    }
    route.gvr = Some(Gvr::new(group, version, parts[0]));
    route.name = parts.get(1).map(|part| decode(part)).unwrap_or_default();
    route.subresource = parts.get(2).map(|part| (*part).to_owned()).unwrap_or_default();
    if parts.len() >= 3 {
        behind(path, all - parts.len() + 3).clone_into(&mut route.rest);
    }
    if by_path {
        "watch".clone_into(&mut route.verb);
    } else if route.name.is_empty() {
        match route.verb.as_str() {
            "get" => {
                route.verb = if watch { "watch" } else { "list" }.to_owned();
                named.unwrap_or_default().clone_into(&mut route.name);
            }
            "delete" => "deletecollection".clone_into(&mut route.verb),
            _ => {}
        }
    }
    route
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// What is left of a path behind its first `segments`, untouched: a trailing slash matters to who
/// is proxied to.
fn behind(path: &str, segments: usize) -> &str {
    let start = path.len() - path.trim_start_matches('/').len();
    let mut slashes = path[start..].match_indices('/').map(|(at, _)| start + at);
    slashes.nth(segments - 1).map_or("", |at| &path[at..])
}

fn decode(part: &str) -> String {
    percent_decode(part, false)
}

/// Undoes percent encoding; in queries a plus sign is a space.
pub fn percent_decode(text: &str, query: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = || text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match bytes[at] {
            b'%' => match hex() {
                Some(byte) => {
                    out.push(byte);
                    at += 2;
                }
                None => out.push(b'%'),
            },
            b'+' if query => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: Method, path: &str) -> (String, String, String, String, String) {
        let route = route(&method, path, false, None);
        let resource = route.gvr.map(|gvr| gvr.group_resource()).unwrap_or_default();
        (route.verb, resource, route.namespace, route.name, route.subresource)
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        for (method, path, want) in [
            (Method::GET, "/api/v1/pods", ("list", "pods", "", "", "")),
            (Method::GET, "/api/v1/namespaces/a/pods/b", ("get", "pods", "a", "b", "")),
            (Method::POST, "/api/v1/namespaces/a/pods", ("create", "pods", "a", "", "")),
            (Method::GET, "/api/v1/namespaces/a", ("get", "namespaces", "a", "a", "")),
            (
                Method::PUT,
                "/api/v1/namespaces/a/finalize",
                ("update", "namespaces", "a", "a", "finalize"),
            ),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/a/deployments",
                ("deletecollection", "deployments.apps", "a", "", ""),
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/services/http:b:80/proxy/x/y",
                ("get", "services", "a", "http:b:80", "proxy"),
            ),
            (Method::GET, "/api/v1/watch/namespaces/a/pods", ("watch", "pods", "a", "", "")),
            (Method::GET, "/apis/apps/v1", ("get", "", "", "", "")),
            (Method::GET, "/healthz", ("get", "", "", "", "")),
        ] {
            let (verb, resource, namespace, name, subresource) = want;
            let want = (verb, resource, namespace, name, subresource);
            let got = read(method, path);
            let got = (&*got.0, &*got.1, &*got.2, &*got.3, &*got.4);
            assert_eq!(got, want, "{path}");
        }
    }

    #[test]
    fn the_path_behind_proxy_keeps_its_shape() {
        let rest = |tail: &str| {
            let path = format!("/api/v1/namespaces/proxy/pods/b/proxy{tail}");
            route(&Method::GET, &path, false, None).rest
        };
        for tail in ["", "/", "/c%2Fd/", "/x/proxy"] {
            assert_eq!(rest(tail), tail);
        }
    }

    #[test]
    fn a_name_in_a_field_selector_is_authorized_by_name() {
        let route = route(&Method::GET, "/api/v1/secrets", true, Some("s"));
        assert_eq!((route.verb.as_str(), route.name.as_str()), ("watch", "s"));
    }
}
