//! What containers printed: `/containerLogs/NAMESPACE/POD/CONTAINER`.

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1 as core;

use super::Host;
use super::engine::{LogQuery, Output};
use super::server::Query;
use crate::client::node::NodeBody;
use crate::object::status::{Result, Status};
use crate::object::time;
use crate::reconcile::Object;

/// Which log and how much of it.
struct Wanted {
    query: LogQuery,
    previous: bool,
    limit: Option<u64>,
}

impl Wanted {
    fn read(host: &Host, query: &Query) -> Result<Self> {
        let number = |name: &str| -> Result<Option<u64>> {
            let text = query.get(name).filter(|text| !text.is_empty());
            let Some(text) = text else { return Ok(None) };
            let read = text.parse();
            read.map(Some).map_err(|_| Status::bad_request(format!("invalid {name}: {text:?}")))
        };
        let ago = number("sinceSeconds")?.map(std::time::Duration::from_secs);
        let since =
            match (query.get("sinceTime").filter(|text| !text.is_empty()), ago) {
                (Some(text), _) => {
                    let read = time::parse(text);
                    Some(read.ok_or_else(|| {
                        Status::bad_request(format!("invalid sinceTime: {text:?}"))
                    })?)
                }
                (None, Some(ago)) => Some(host.clock.now() - ago),
                (None, None) => None,
            };
        let (stdout, stderr) = match query.get("stream").unwrap_or("All") {
            "Stdout" => (true, false),
            "Stderr" => (false, true),
            "" | "All" => (true, true),
            other => return Err(Status::bad_request(format!("invalid stream type {other:?}"))),
        };
        Ok(Self {
            query: LogQuery {
                follow: query.is_set("follow"),
                tail: number("tailLines")?,
                since,
                timestamps: query.is_set("timestamps"),
                stdout,
                stderr,
            },
            previous: query.is_set("previous"),
            limit: number("limitBytes")?,
        })
    }
}

/// The id of the container whose log is meant, or upstream's words why there is none.
fn container_id(
    pod: &core::Pod,
    name: &str,
    previous: bool,
) -> std::result::Result<String, String> {
    let status = pod.status.clone().unwrap_or_default();
    let lists = [
        status.container_statuses,
        status.init_container_statuses,
        status.ephemeral_container_statuses,
    ];
    let found = lists.into_iter().flatten().flatten().find(|status| status.name == name);
    let place = format!("container {name:?} in pod {:?}", pod.name());
    let Some(found) = found else { return Err(format!("{place} is not available")) };
    let (state, last) = (found.state.unwrap_or_default(), found.last_state.unwrap_or_default());
    let before = last.terminated.as_ref().and_then(|ended| ended.container_id.clone());
    let id = if previous {
        before.ok_or_else(|| format!("previous terminated {place} not found"))?
    } else if state.running.is_some() {
        found.container_id.unwrap_or_default()
    } else if let Some(ended) = state.terminated {
        let own = ended.container_id.or(before);
        own.ok_or_else(|| format!("{place} is terminated"))?
    } else if last.terminated.is_some() {
        before.ok_or_else(|| format!("{place} is terminated"))?
    } else {
        let reason = state.waiting.and_then(|waiting| waiting.reason).unwrap_or_default();
        return Err(match reason.as_str() {
            "ErrImagePull" => format!("{place} is waiting to start: image can't be pulled"),
            "ImagePullBackOff" => {
                format!("{place} is waiting to start: trying and failing to pull image")
            }
            "" => format!("{place} is waiting to start - no logs yet"),
            other => format!("{place} is waiting to start: {other}"),
        });
    };
    Ok(id.trim_start_matches("docker://").to_owned())
}

/// The bytes of a log; they end when the container does, if it is followed.
pub async fn stream(
    host: &Host,
    pod: &core::Pod,
    container: &str,
    query: &Query,
) -> Result<BoxStream<'static, std::io::Result<Bytes>>> {
    let wanted = Wanted::read(host, query)?;
    let id = container_id(pod, container, wanted.previous).map_err(Status::bad_request)?;
    let output = host.engine.logs(&id, &wanted.query).await.map_err(Status::internal)?;
    let mut left = wanted.limit.unwrap_or(u64::MAX);
    let cut = output.map(move |chunk| {
        let (Output::Stdout(bytes) | Output::Stderr(bytes)) =
            chunk.map_err(std::io::Error::other)?;
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        left -= room as u64;
        Ok((bytes.slice(..room), left == 0))
    });
    // The chunk that reaches the limit is the last.
    let mut over = false;
    let bounded = cut.take_while(move |chunk| {
        let go_on = !over;
        over = chunk.as_ref().is_ok_and(|(_, last)| *last);
        std::future::ready(go_on)
    });
    Ok(bounded.map(|chunk| chunk.map(|(bytes, _)| bytes)).boxed())
}

/// The answer to a plain request.
pub fn response(stream: BoxStream<'static, std::io::Result<Bytes>>) -> Response<NodeBody> {
    let body = StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))).boxed_unsync();
    let mut response = Response::new(body);
    let kind = http::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_log_asked_for_is_found_by_state() {
        let pod = |status: serde_json::Value| -> core::Pod {
            let body =
                json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [status]}});
            serde_json::from_value(body).unwrap()
        };
        let base = json!({"name": "a", "image": "", "imageID": "", "ready": false,
            "restartCount": 1, "containerID": "docker://new"});
        let mut running = base.clone();
        running["state"] = json!({"running": {}});
        running["lastState"] =
            json!({"terminated": {"exitCode": 1, "containerID": "docker://old"}});
        assert_eq!(container_id(&pod(running.clone()), "a", false).unwrap(), "new");
        assert_eq!(container_id(&pod(running), "a", true).unwrap(), "old");
        let mut waiting = base;
        waiting["state"] = json!({"waiting": {"reason": "ImagePullBackOff"}});
        let error = container_id(&pod(waiting), "a", false).unwrap_err();
        assert!(error.ends_with("trying and failing to pull image"), "{error}");
        assert!(container_id(&core::Pod::default(), "a", false).is_err());
    }
}
