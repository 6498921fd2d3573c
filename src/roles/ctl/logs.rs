//! `ctl logs`.
//!
//! Why bytes as they come: a log line is the container's; nothing is read out of it but its end.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use http::Request;
use http_body_util::{BodyExt, Full, Limited};

use super::pods;
use super::session::Session;
use super::{follow, output};
use crate::client::http::{failure, path, with_query};
use crate::object::{Value, meta};

/// Streams read at once with `-f`, as kubectl limits them.
const STREAMS_MAX: usize = 5;
/// Largest refusal that is read, in bytes.
const REFUSAL_BYTES_MAX: usize = 1024 * 1024;
/// Lines of each container shown when containers are chosen by label, as kubectl has it.
const TAIL_BY_LABEL: i64 = 10;

/// Print what a container wrote
#[derive(Args, Clone, Debug)]
pub struct Logs {
    /// The pod, or a workload as in deploy/web
    #[arg(value_name = "POD | TYPE/NAME", required_unless_present = "selector")]
    pod: Option<String>,
    /// The container (may also follow the pod's name)
    #[arg(value_name = "CONTAINER")]
    container_word: Option<String>,
    /// The container
    #[arg(long, short = 'c', value_name = "NAME", default_value = "", hide_default_value = true)]
    container: String,
    /// All pods with these labels
    #[arg(long, short = 'l', value_name = "LABELS", conflicts_with = "pod")]
    selector: Option<String>,
    /// Go on printing what comes
    #[arg(long, short = 'f')]
    follow: bool,
    /// Only this many lines at the end; -1 for all
    #[arg(long, value_name = "LINES", allow_hyphen_values = true)]
    tail: Option<i64>,
    /// Only lines younger than this, as in 5s or 2h
    #[arg(long, value_name = "DURATION", value_parser = follow::duration)]
    since: Option<Duration>,
    /// Only lines after this time (RFC 3339)
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    since_time: Option<String>,
    /// A time before each line
    #[arg(long)]
    timestamps: bool,
    /// Of the container that ran before
    #[arg(long, short = 'p')]
    previous: bool,
    /// Of all containers of a pod
    #[arg(long)]
    all_containers: bool,
    /// Pod and container before each line
    #[arg(long)]
    prefix: bool,
    /// At most this many bytes
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<u64>,
}

/// One stream: where it is read, and what stands before its lines.
struct Stream {
    path: String,
    prefix: String,
}

impl Logs {
    /// Runs the verb.
    pub async fn run(&self, session: &Session) -> anyhow::Result<i32> {
        let pods = match (&self.pod, &self.selector) {
            (Some(word), _) => {
                let mut pods = pods::meant(session, word).await?;
                if pods.len() > 1 {
                    let first = meta::name(&pods[0]).to_owned();
                    eprintln!("Found {} pods, using pod/{first}", pods.len());
                    pods.truncate(1);
                }
                pods
            }
            (None, Some(labels)) => pods::select(session, labels).await?,
            (None, None) => anyhow::bail!("name a pod or use -l"),
        };
        if pods.is_empty() {
            eprintln!("No resources found in {} namespace.", session.namespace);
            return Ok(0);
        }
        let mut streams = Vec::new();
        for pod in &pods {
            streams.extend(self.streams(session, pod).await?);
        }
        if !self.follow {
            for stream in &streams {
                show(session, stream).await?;
            }
            return Ok(0);
        }
        anyhow::ensure!(
            streams.len() <= STREAMS_MAX,
            "you are attempting to follow {} log streams, but maximum allowed concurrency is \
             {STREAMS_MAX}",
            streams.len()
        );
        let all = streams.iter().map(|stream| show(session, stream));
        futures::stream::iter(all).buffer_unordered(STREAMS_MAX).try_collect::<()>().await?;
        Ok(0)
    }

    async fn streams(&self, session: &Session, pod: &Value) -> anyhow::Result<Vec<Stream>> {
        let containers = if self.all_containers {
            let (init, all) = pods::containers(pod);
            init.into_iter().chain(all).map(str::to_owned).collect()
        } else {
            let named = self.container_word.as_deref().unwrap_or(&self.container);
            vec![pods::container(pod, named)?]
        };
        let by_label = self.selector.is_some().then_some(TAIL_BY_LABEL);
        let tail = self.tail.or(by_label).filter(|lines| *lines >= 0);
        let text = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
        let tail = tail.map(|lines| lines.to_string()).unwrap_or_default();
        let since = text(self.since.map(|since| since.as_secs().max(1)));
        let limit = text(self.limit_bytes);
        let flag = |on: bool| if on { "true" } else { "" };
        let kind = session.kind("pods").await?;
        let target = session.target(kind, meta::namespace(pod), meta::name(pod)).sub("log");
        let stream = |container: String| {
            let query = [
                ("container", container.as_str()),
                ("follow", flag(self.follow)),
                ("previous", flag(self.previous)),
                ("timestamps", flag(self.timestamps)),
                ("tailLines", &tail),
                ("sinceSeconds", &since),
                ("sinceTime", self.since_time.as_deref().unwrap_or("")),
                ("limitBytes", &limit),
            ];
            let prefix = match self.prefix {
                true => format!("[pod/{}/{container}] ", meta::name(pod)),
                false => String::new(),
            };
            Stream { path: with_query(path(&target), &query), prefix }
        };
        Ok(containers.into_iter().map(stream).collect())
    }
}

async fn show(session: &Session, stream: &Stream) -> anyhow::Result<()> {
    let request = Request::builder().uri(&stream.path).body(Full::<Bytes>::default())?;
    let answer = session.http.send(request).await?;
    if !answer.status().is_success() {
        let code = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        return Err(failure(code, &body).into());
    }
    let mut body = answer.into_body();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        rest.extend_from_slice(data);
        // Whole lines only, so that streams side by side do not mix.
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
        let lines: Vec<u8> = rest.drain(..=end).collect();
        output::bytes(&prefixed(&stream.prefix, &lines))?;
    }
    if !rest.is_empty() {
        output::bytes(&prefixed(&stream.prefix, &rest))?;
    }
    Ok(())
}

fn prefixed(prefix: &str, lines: &[u8]) -> Vec<u8> {
    if prefix.is_empty() {
        return lines.to_vec();
    }
    let lines = lines.split_inclusive(|byte| *byte == b'\n');
    lines.flat_map(|line| [prefix.as_bytes(), line].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_gets_its_prefix() {
        assert_eq!(prefixed("[a] ", b"1\n2\n"), b"[a] 1\n[a] 2\n");
        assert_eq!(prefixed("", b"1\n2"), b"1\n2");
    }
}
