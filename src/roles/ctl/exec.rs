//! `ctl exec`: a command in a container, over a WebSocket (`v5.channel.k8s.io`).
//!
//! Why the exit code is the command's: a script must not see a difference between here and there.

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::pods;
use super::session::Session;
use super::terminal::{self, Raw};
use crate::client::http::{escape, failure, path};
use crate::object::meta;
use crate::object::status::Status;

const PROTOCOL: &str = "v5.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const RESULT: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Bytes of standard input sent at once.
const INPUT_BYTES: usize = 32 * 1024;
/// Largest refusal that is read, in bytes.
const REFUSAL_BYTES_MAX: usize = 1024 * 1024;

/// Run a command in a container
#[derive(Args, Clone, Debug)]
pub struct Exec {
    /// The pod, or a workload whose first running pod is meant, as in deploy/web
    #[arg(value_name = "POD | TYPE/NAME")]
    pod: String,
    /// The container
    #[arg(long, short = 'c', value_name = "NAME", default_value = "", hide_default_value = true)]
    container: String,
    /// Pass standard input on
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Standard input is a terminal
    #[arg(long, short = 't')]
    tty: bool,
    /// Say nothing of our own
    #[arg(long, short = 'q')]
    quiet: bool,
    /// The command with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

impl Exec {
    /// Runs the verb.
    pub async fn run(&self, session: &Session) -> anyhow::Result<i32> {
        let pods = pods::meant(session, &self.pod).await?;
        let pod = &pods[0];
        let phase = meta::text(pod, &["status", "phase"]);
        anyhow::ensure!(
            !["Succeeded", "Failed"].contains(&phase),
            "cannot exec into a container in a completed pod; current phase is {phase}"
        );
        let container = pods::container(pod, &self.container)?;
        let tty = self.tty && self.stdin && terminal::is_input();
        if self.tty && !tty && !self.quiet {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        }
        let kind = session.kind("pods").await?;
        let target = session.target(kind, meta::namespace(pod), meta::name(pod)).sub("exec");
        let mut query = vec![("container", container.as_str()), ("stdout", "true")];
        query.extend(self.stdin.then_some(("stdin", "true")));
        query.push(if tty { ("tty", "true") } else { ("stderr", "true") });
        query.extend(self.command.iter().map(|word| ("command", word.as_str())));
        let query: Vec<String> =
            query.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        let socket = open(session, &format!("{}?{}", path(&target), query.join("&"))).await?;
        let raw = if tty { Some(Raw::new()?) } else { None };
        let result = talk(socket, self.stdin, tty).await;
        drop(raw);
        let code = exit_code(&result?)?;
        if code != 0 && !self.quiet {
            eprintln!("command terminated with exit code {code}");
        }
        Ok(code)
    }
}

async fn open(session: &Session, path: &str) -> anyhow::Result<Socket> {
    let key = generate_key();
    let request = Request::builder()
        .uri(path)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .body(Full::<Bytes>::default())?;
    let answer = session.http.send(request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let code = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        return Err(failure(code, &body).into());
    }
    let given = |name: header::HeaderName| {
        answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned()
    };
    anyhow::ensure!(
        given(header::SEC_WEBSOCKET_ACCEPT) == derive_accept_key(key.as_bytes())
            && given(header::SEC_WEBSOCKET_PROTOCOL) == PROTOCOL,
        "the server does not speak {PROTOCOL}"
    );
    let upgraded = hyper::upgrade::on(answer).await.context("upgrading the connection")?;
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
}

/// Passes bytes both ways until the server says how the command ended.
async fn talk(socket: Socket, stdin: bool, tty: bool) -> anyhow::Result<Status> {
    let (mut sink, mut stream) = socket.split();
    let send = async move {
        let mut input = tokio::io::stdin();
        let mut resized = signal(SignalKind::window_change())?;
        let mut open = stdin;
        if tty {
            sink.send(size()).await?;
        }
        let mut buffer = vec![0; INPUT_BYTES];
        loop {
            tokio::select! {
                read = input.read(&mut buffer), if open => {
                    let read = read?;
                    open = read > 0;
                    let message = match open {
                        true => framed(STDIN, &buffer[..read]),
                        false => Message::binary(vec![CLOSE, STDIN]),
                    };
                    sink.send(message).await?;
                }
                _ = resized.recv(), if tty => sink.send(size()).await?,
                else => std::future::pending::<()>().await,
            }
        }
    };
    let receive = async {
        let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
        while let Some(message) = stream.next().await {
            let data = match message? {
                Message::Binary(data) => data,
                Message::Close(_) => break,
                _ => continue,
            };
            match data.split_first() {
                Some((&STDOUT, bytes)) => {
                    out.write_all(bytes).await?;
                    out.flush().await?;
                }
                Some((&STDERR, bytes)) => {
                    err.write_all(bytes).await?;
                    err.flush().await?;
                }
                Some((&RESULT, bytes)) => return Ok(serde_json::from_slice(bytes)?),
                _ => {}
            }
        }
        anyhow::bail!("the connection ended before the command did")
    };
    tokio::select! {
        result = receive => result,
        // The server may close first and then say why: what is sent no more is no failure yet.
        sent = send => {
            let sent: anyhow::Result<()> = sent;
            sent?;
            anyhow::bail!("the connection ended before the command did")
        }
    }
}

fn framed(channel: u8, bytes: &[u8]) -> Message {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(channel);
    frame.extend_from_slice(bytes);
    Message::binary(frame)
}

fn size() -> Message {
    let (width, height) = terminal::size().unwrap_or((80, 24));
    let size = serde_json::json!({"Width": width, "Height": height}).to_string();
    framed(RESIZE, size.as_bytes())
}

/// The exit code in the server's last word.
fn exit_code(status: &Status) -> anyhow::Result<i32> {
    if status.status == "Success" {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut codes = causes.filter(|cause| cause.reason == "ExitCode");
    match codes.next().and_then(|cause| cause.message.parse().ok()) {
        Some(code) if status.reason == "NonZeroExitCode" => Ok(code),
        _ => Err(status.clone().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_commands_exit_code_is_ours() {
        let status = json!({"status": "Failure", "reason": "NonZeroExitCode", "code": 500,
            "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}});
        assert_eq!(exit_code(&serde_json::from_value(status).unwrap()).unwrap(), 7);
        let success = json!({"status": "Success"});
        assert_eq!(exit_code(&serde_json::from_value(success).unwrap()).unwrap(), 0);
        let failed = json!({"status": "Failure", "reason": "InternalError", "message": "x"});
        assert!(exit_code(&serde_json::from_value(failed).unwrap()).is_err());
    }
}
