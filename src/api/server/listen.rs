//! The way in from the network: accept, TLS, HTTP/1.1 and HTTP/2, one task a connection.
//!
//! Why hyper and not warp alone: warp cannot stream a body of ours, see a whole request or hand
//! over an upgraded connection. Client certificates are asked for and never demanded; the handshake
//! proves that the client holds the key, and the authenticators judge the issuer, so that a bad
//! certificate is a 401 Status.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Api;
use crate::api::chain::{self, Peer};
use crate::stdx::tasks::RESTART;

/// How long a client may take for the TLS handshake; longer and it is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of an HTTP/1 request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Header fields of one request; more is a 431.
const HEADERS_MAX: usize = 256;
/// Bytes of the head of one request, also decoded from HPACK; more is a 431.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Streams of one HTTP/2 connection (upstream's `--http2-max-streams-per-connection`).
const STREAMS_MAX: u32 = 250;
/// Resets that a client may leave unanswered before its connection ends (CVE-2023-44487).
const RESETS_MAX: usize = 100;
/// Bytes that an HTTP/2 stream and connection may be ahead of us.
const WINDOW_BYTES: u32 = 256 * 1024;
/// A silent HTTP/2 connection is asked for a sign of life this often.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Pause after the system refuses to accept (out of file descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An address to serve on, and the certificates to show.
pub struct Listener {
    /// Bound already, so that port 0 works and a port in use fails early.
    pub socket: TcpListener,
    /// What [`server_config`](crate::api::pki) makes: it asks for certificates, judges none.
    pub tls: Arc<rustls::ServerConfig>,
}

/// Serves the API on `listener` until the tasks stop.
pub fn serve(api: &Arc<Api>, listener: Listener) {
    let acceptor = TlsAcceptor::from(listener.tls);
    let socket = Arc::new(listener.socket);
    let api = api.clone();
    let tasks = api.tasks.clone();
    let connections = tasks.child();
    tasks.spawn("api listener", RESTART, move |stop| {
        let (api, socket, acceptor) = (api.clone(), socket.clone(), acceptor.clone());
        let connections = connections.clone();
        async move {
            loop {
                let accepted = tokio::select! {
                    accepted = socket.accept() => accepted,
                    () = stop.cancelled() => return Ok(()),
                };
                match accepted {
                    Ok((stream, from)) => {
                        let _ = stream.set_nodelay(true);
                        let (api, acceptor) = (api.clone(), acceptor.clone());
                        connections.spawn_once("api connection", async move {
                            handshake(api, acceptor, stream, from).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!("accept: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    });
}

async fn handshake(
    api: Arc<Api>,
    acceptor: TlsAcceptor,
    stream: tokio::net::TcpStream,
    from: SocketAddr,
) {
    let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%from, "TLS handshake: {error}"),
        Err(_) => return tracing::debug!(%from, "TLS handshake: too slow"),
    };
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates = shown.iter().map(|one| one.clone().into_owned()).collect();
    connection(api, stream, Some(from.ip()), certificates).await;
}

/// Speaks HTTP on a connection whose TLS is done.
pub async fn connection(
    api: Arc<Api>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: Option<IpAddr>,
    certificates: Vec<CertificateDer<'static>>,
) {
    let peer = Arc::new(Peer { address, certificates });
    let stop = api.tasks.stop_token();
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (api, peer) = (api.clone(), peer.clone());
        async move {
            let request = request.map(|body| body.map_err(std::io::Error::other).boxed_unsync());
            Ok::<_, std::convert::Infallible>(chain::handle(api, peer, request).await)
        }
    });
    let builder = builder();
    let running = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(running);
    let end = tokio::select! {
        end = running.as_mut() => end,
        () = stop.cancelled() => {
            running.as_mut().graceful_shutdown();
            running.await
        }
    };
    if let Err(error) = end {
        tracing::debug!("connection from {address:?}: {error}");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX as usize)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}
