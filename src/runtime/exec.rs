//! exec and attach over WebSocket, in Kubernetes' channel protocols.
//!
//! A message begins with the number of its channel: 0 stdin, 1 stdout, 2 stderr, 3 the result,
//! 4 the terminal's size. Version 5 adds a way to close stdin; version 4 made the result a Status; the
//! base64 forms are for clients that can't send binary messages.

use std::pin::Pin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::SharedHost;
use super::engine::{Output, OutputStream, Session};

/// The largest message that is taken from a client, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Messages that wait to be sent to a client; a slow client slows the process.
const OUTGOING_MAX: usize = 16;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// How messages are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    name: &'static str,
    base64: bool,
    /// 1, 4 or 5.
    version: u8,
}

/// In the order of preference.
const PROTOCOLS: [Protocol; 5] = [
    Protocol { name: "v5.channel.k8s.io", base64: false, version: 5 },
    Protocol { name: "v4.channel.k8s.io", base64: false, version: 4 },
    Protocol { name: "v4.base64.channel.k8s.io", base64: true, version: 4 },
    Protocol { name: "channel.k8s.io", base64: false, version: 1 },
    Protocol { name: "base64.channel.k8s.io", base64: true, version: 1 },
];

impl Protocol {
    /// The best protocol that a client offers; without an offer it is the oldest.
    pub fn choose<'a>(offered: impl Iterator<Item = &'a str> + Clone) -> Option<Self> {
        if offered.clone().next().is_none() {
            return Some(Self { name: "", ..PROTOCOLS[3] });
        }
        let known = |protocol: &&Self| offered.clone().any(|name| name == protocol.name);
        PROTOCOLS.iter().find(known).copied()
    }

    /// As the answer names it; "" for none.
    pub const fn name(self) -> &'static str {
        self.name
    }

    fn frame(self, channel: u8, bytes: &[u8]) -> Message {
        if self.base64 {
            return Message::text(format!("{channel}{}", BASE64.encode(bytes)));
        }
        let mut frame = Vec::with_capacity(bytes.len() + 1);
        frame.push(channel);
        frame.extend_from_slice(bytes);
        Message::binary(frame)
    }

    fn read(self, message: &Message) -> Option<(u8, Bytes)> {
        let bytes = match message {
            Message::Binary(bytes) => bytes.clone(),
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            _ => return None,
        };
        let (first, rest) = (*bytes.first()?, bytes.slice(1..));
        match self.base64 {
            true => Some((first.checked_sub(b'0')?, BASE64.decode(rest).ok()?.into())),
            false => Some((first, rest)),
        }
    }

    /// The result as the client expects it; `None` for "nothing to say".
    fn result(self, end: &End) -> Option<Vec<u8>> {
        match (self.version, end) {
            (1, End::Code(0)) => None,
            (1, End::Code(code)) => Some(nonzero(*code).into_bytes()),
            (1, End::Failed(error)) => Some(error.clone().into_bytes()),
            (_, end) => Some(end.status().to_string().into_bytes()),
        }
    }
}

fn nonzero(code: i32) -> String {
    format!("command terminated with non-zero exit code: exit status {code}")
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The process ended with this code.
    Code(i32),
    /// It could not be talked to.
    Failed(String),
}

impl End {
    fn status(&self) -> Value {
        match self {
            Self::Code(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Code(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": nonzero(*code),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(error) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {error}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": error}]},
                "code": 500,
            }),
        }
    }
}

/// What a session connects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wiring {
    /// The client sends input.
    pub stdin: bool,
    /// It wants output.
    pub stdout: bool,
    /// It wants errors.
    pub stderr: bool,
    /// It talks to the container's own process instead of a new one.
    pub attach: bool,
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// A WebSocket over an upgraded connection.
pub async fn socket(upgraded: hyper::upgrade::Upgraded) -> Socket {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

/// Sends a log as messages without channels, until it or the client ends.
pub async fn send_log(
    socket: Socket,
    base64: bool,
    mut log: futures::stream::BoxStream<'static, std::io::Result<Bytes>>,
) {
    let (mut sink, mut source) = socket.split();
    let send = async {
        while let Some(Ok(bytes)) = log.next().await {
            let message = match base64 {
                true => Message::text(BASE64.encode(&bytes)),
                false => Message::binary(bytes),
            };
            if sink.send(message).await.is_err() {
                return;
            }
        }
        end(&mut sink).await;
    };
    let listen = async { while let Some(Ok(_)) = source.next().await {} };
    tokio::select! {
        () = send => {}
        () = listen => {}
    }
}

/// Joins a client and a process until either ends.
pub async fn join(
    host: SharedHost,
    socket: Socket,
    protocol: Protocol,
    wiring: Wiring,
    session: Result<Session, String>,
) {
    let (sink, source) = socket.split();
    let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
    let write = write_all(sink, queue);
    let Session { id, output, input } = match session {
        Ok(session) => session,
        Err(error) => {
            let result = protocol.result(&End::Failed(error)).unwrap_or_default();
            outgoing.send(protocol.frame(ERROR, &result)).await.ok();
            drop(outgoing);
            write.await;
            return;
        }
    };
    let talk = Talk { host, id, protocol, wiring };
    tokio::select! {
        ((), ()) = async { tokio::join!(talk.print(output, outgoing), write) } => {}
        () = talk.read(source, input) => {}
    }
}

/// A session that stands.
struct Talk {
    host: SharedHost,
    id: String,
    protocol: Protocol,
    wiring: Wiring,
}

impl Talk {
    /// What the client sends goes to the process.
    async fn read(
        &self,
        mut source: SplitStream<Socket>,
        mut input: Pin<Box<dyn AsyncWrite + Send>>,
    ) {
        while let Some(Ok(message)) = source.next().await {
            if message.is_close() {
                return;
            }
            let Some((channel, bytes)) = self.protocol.read(&message) else { continue };
            match channel {
                // A process that reads no more may still print.
                STDIN if self.wiring.stdin && !bytes.is_empty() => {
                    feed(&mut input, &bytes).await.ok();
                }
                RESIZE => resize(&self.host, &self.id, self.wiring.attach, &bytes).await,
                CLOSE if self.protocol.version >= 5 && bytes.first() == Some(&STDIN) => {
                    input.shutdown().await.ok();
                }
                _ => {}
            }
        }
    }

    /// What the process prints goes to the client, and at last how it ended.
    async fn print(&self, mut output: OutputStream, outgoing: mpsc::Sender<Message>) {
        // An empty message tells the client that the session stands.
        let first = match (self.wiring.stdout, self.wiring.stderr) {
            (true, _) => STDOUT,
            (false, true) => STDERR,
            (false, false) => ERROR,
        };
        outgoing.send(self.protocol.frame(first, &[])).await.ok();
        let mut failed = None;
        while let Some(chunk) = output.next().await {
            let (wanted, channel, bytes) = match chunk {
                Ok(Output::Stdout(bytes)) => (self.wiring.stdout, STDOUT, bytes),
                Ok(Output::Stderr(bytes)) => (self.wiring.stderr, STDERR, bytes),
                Err(error) => {
                    failed = Some(End::Failed(error.to_string()));
                    break;
                }
            };
            let frame = self.protocol.frame(channel, &bytes);
            if wanted && outgoing.send(frame).await.is_err() {
                return;
            }
        }
        let end = match failed {
            Some(end) => end,
            None if self.wiring.attach => End::Code(0),
            None => exit(&self.host, &self.id).await,
        };
        if let Some(result) = self.protocol.result(&end) {
            outgoing.send(self.protocol.frame(ERROR, &result)).await.ok();
        }
    }
}

async fn write_all(mut sink: SplitSink<Socket, Message>, mut queue: mpsc::Receiver<Message>) {
    while let Some(message) = queue.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    end(&mut sink).await;
}

/// Says that all is said. client-go takes any other code, also none, for a broken connection.
async fn end(sink: &mut SplitSink<Socket, Message>) {
    let normal = CloseFrame { code: CloseCode::Normal, reason: Default::default() };
    sink.send(Message::Close(Some(normal))).await.ok();
    sink.close().await.ok();
}

async fn feed(input: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    input.write_all(bytes).await?;
    input.flush().await
}

async fn exit(host: &SharedHost, exec: &str) -> End {
    match host.engine.exec_exit(exec).await {
        Ok(Some(code)) => End::Code(code),
        Ok(None) => End::Failed("the command still runs, but its output ended".to_owned()),
        Err(error) => End::Failed(format!("error executing command in container: {error}")),
    }
}

async fn resize(host: &SharedHost, id: &str, attach: bool, bytes: &[u8]) {
    let Ok(size) = serde_json::from_slice::<Value>(bytes) else { return };
    let of =
        |name: &str| size.get(name).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
    let (Some(width), Some(height)) = (of("Width"), of("Height")) else { return };
    let done = match attach {
        true => host.engine.attach_resize(id, width, height).await,
        false => host.engine.exec_resize(id, width, height).await,
    };
    if let Err(error) = done {
        tracing::debug!("a terminal could not be resized: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_protocol_is_chosen_and_frames_round_trip() {
        let offer = ["v4.channel.k8s.io", "v5.channel.k8s.io"];
        assert_eq!(Protocol::choose(offer.into_iter()).unwrap().name(), "v5.channel.k8s.io");
        assert_eq!(Protocol::choose(["x"].into_iter()), None);
        assert_eq!(Protocol::choose([].into_iter()).unwrap().name(), "");
        for protocol in PROTOCOLS {
            let message = protocol.frame(STDERR, b"\xffhi");
            let (channel, bytes) = protocol.read(&message).unwrap();
            assert_eq!((channel, bytes.as_ref()), (STDERR, b"\xffhi".as_slice()));
        }
    }

    #[test]
    fn results_are_what_each_version_expects() {
        assert_eq!(PROTOCOLS[3].result(&End::Code(0)), None);
        let text = PROTOCOLS[3].result(&End::Code(3)).unwrap();
        assert!(text.ends_with(b"exit status 3"));
        let status = PROTOCOLS[0].result(&End::Code(3)).unwrap();
        let status: Value = serde_json::from_slice(&status).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        let success = PROTOCOLS[1].result(&End::Code(0)).unwrap();
        assert_eq!(success, br#"{"metadata":{},"status":"Success"}"#);
    }
}
