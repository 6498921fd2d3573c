//! Logs, exec, attach and port-forward: the request is handed to the pod's node.
//!
//! Why nothing is translated but path and query: an upgraded connection travels with its request,
//! so the node speaks to the client itself and no byte is looked at twice.

use http::{Request as HttpRequest, Uri};

use crate::api::admission::Operation;
use crate::api::body::{self, Reply};
use crate::api::chain::authorize::authorize;
use crate::api::context::Attributes;
use crate::api::data;
use crate::api::handlers::admit::Admission;
use crate::api::handlers::{Request, get};
use crate::api::query::Query;
use crate::api::server::Call;
use crate::object::status::{FieldError, Result, Status};
use crate::object::{Value, meta};

/// Answers GET and POST of `log`, `exec`, `attach` and `portforward`.
pub async fn handle(call: &Call, request: &mut Request) -> Result<Reply> {
    let subresource = call.attributes.subresource.as_str();
    if subresource != "log" {
        // A WebSocket begins with a GET; that must not need less than the POST of old.
        let create = Attributes { verb: "create".to_owned(), ..call.attributes.clone() };
        authorize(&call.api, &create).await?;
        let name = call.attributes.name.as_str();
        Admission::new(call, Operation::Connect, name, None, false).without_object().await?;
    }
    let pod = data::decode(&get::get(call, "").await?)?;
    let (namespace, name) = (meta::namespace(&pod), meta::name(&pod));
    let query = &request.query;
    let path = match subresource {
        "log" => {
            check_log_options(name, query)?;
            let container = container(&pod, query.get("container"))?;
            if meta::text(&pod, &["spec", "nodeName"]).is_empty() {
                return Ok(body::reply(http::StatusCode::OK, "text/plain", ""));
            }
            format!("/containerLogs/{namespace}/{name}/{container}?{}", log_query(query))
        }
        "portforward" => {
            let ports: Vec<&str> = query.all("ports").collect();
            let ports =
                if ports.is_empty() { String::new() } else { format!("port={}", ports.join(",")) };
            format!("/portForward/{namespace}/{name}?{ports}")
        }
        _ => {
            let container = container(&pod, query.get("container"))?;
            format!("/{subresource}/{namespace}/{name}/{container}?{}", stream_query(query))
        }
    };
    let node = meta::text(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    to_node(call, request, node, &path).await
}

/// Hands a request to a node under another path.
pub async fn to_node(call: &Call, request: &mut Request, node: &str, path: &str) -> Result<Reply> {
    let nodes = call.api.nodes.clone();
    let nodes = nodes.ok_or_else(|| Status::unavailable("no way to the nodes is set up here"))?;
    let uri: Uri = path.trim_end_matches('?').parse().map_err(Status::internal)?;
    let body = request.body.take().unwrap_or_else(|| body::full(""));
    let mut forwarded = HttpRequest::new(body);
    *forwarded.method_mut() = request.parts.method.clone();
    *forwarded.uri_mut() = uri;
    *forwarded.version_mut() = request.parts.version;
    *forwarded.headers_mut() = request.parts.headers.clone();
    // The node must not learn the caller's credentials.
    for name in ["authorization", "cookie"] {
        forwarded.headers_mut().remove(name);
    }
    *forwarded.extensions_mut() = std::mem::take(&mut request.parts.extensions);
    nodes.call(node, forwarded).await
}

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    let list = meta::at(pod, &["spec", list]).and_then(Value::as_array);
    list.into_iter().flatten().map(|one| meta::text(one, &["name"])).collect()
}

/// The container that is meant, in upstream's words when it is none.
fn container(pod: &Value, asked: &str) -> Result<String> {
    let containers = names(pod, "containers");
    let (init, ephemeral) = (names(pod, "initContainers"), names(pod, "ephemeralContainers"));
    let pod_name = meta::name(pod);
    if !asked.is_empty() {
        let known = [&containers, &init, &ephemeral].into_iter().flatten().any(|one| *one == asked);
        if known {
            return Ok(asked.to_owned());
        }
        let text = format!("container {asked} is not valid for pod {pod_name}");
        return Err(Status::bad_request(text));
    }
    if let [only] = containers.as_slice() {
        return Ok((*only).to_owned());
    }
    let mut text = format!("a container name must be specified for pod {pod_name}");
    if !containers.is_empty() {
        text.push_str(&format!(", choose one of: [{}]", containers.join(" ")));
    }
    if !init.is_empty() {
        text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    if !ephemeral.is_empty() {
        text.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
    }
    Err(Status::bad_request(text))
}

const LOG_PARAMETERS: [&str; 8] = [
    "follow",
    "previous",
    "timestamps",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "limitBytes",
    "stream",
];

fn log_query(query: &Query) -> String {
    let given = LOG_PARAMETERS.iter().filter(|name| query.has(name)).map(|name| {
        let value = match (*name, query.get(name)) {
            ("follow" | "previous" | "timestamps", _) => query.flag(name).to_string(),
            (_, value) => escape(value),
        };
        format!("{name}={value}")
    });
    given.collect::<Vec<_>>().join("&")
}

fn check_log_options(pod: &str, query: &Query) -> Result<()> {
    let mut errors = Vec::new();
    for (name, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        let text = query.get(name);
        if text.is_empty() {
            continue;
        }
        let Ok(number) = text.parse::<i64>() else {
            let why = format!("strconv.ParseInt: parsing {text:?}: invalid syntax");
            return Err(Status::bad_request(why));
        };
        if number < least {
            let why = if least == 0 {
                "must be greater than or equal to 0"
            } else {
                "must be greater than 0"
            };
            errors.push(FieldError::invalid(name, number, why));
        }
    }
    if query.has("sinceSeconds") && query.has("sinceTime") {
        let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden("", why));
    }
    let stream = query.get("stream");
    if !["", "All", "Stdout", "Stderr"].contains(&stream) {
        errors.push(FieldError::not_supported("stream", stream, &["All", "Stdout", "Stderr"]));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("", "PodLogOptions", pod, &errors)) }
}

/// The client's parameters by the names that nodes use.
fn stream_query(query: &Query) -> String {
    let flags = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    let mut parts: Vec<String> = flags
        .iter()
        .filter(|(name, _)| query.flag(name))
        .map(|(_, node)| format!("{node}=1"))
        .collect();
    parts.extend(query.all("command").map(|word| format!("command={}", escape(word))));
    parts.join("&")
}

/// Percent encoding for a query's value.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_found_or_asked_for() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}],
            "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, "").unwrap(), "a");
        assert_eq!(container(&pod, "i").unwrap(), "i");
        assert_eq!(container(&pod, "x").unwrap_err().message, "container x is not valid for pod p");
        pod["spec"]["containers"] = json!([{"name": "a"}, {"name": "b"}]);
        assert_eq!(
            container(&pod, "").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init \
             containers: [i]"
        );
    }

    #[test]
    fn parameters_get_the_names_that_nodes_use() {
        let query =
            Query::parse("stdin=true&stdout=1&tty=false&command=sh&command=-c&command=a%20b");
        assert_eq!(stream_query(&query), "input=1&output=1&command=sh&command=-c&command=a%20b");
        let query = Query::parse("follow=true&tailLines=5&container=x");
        assert_eq!(log_query(&query), "follow=true&tailLines=5");
        assert_eq!(check_log_options("p", &Query::parse("tailLines=-1")).unwrap_err().code, 422);
    }
}
