//! The two gRPC calls of etcd that are measured, by hand over HTTP/2 and TLS.
//!
//! Why not its JSON gateway: that would measure a proxy inside etcd. A put is two protobuf fields,
//! so the fair client costs forty lines and no dependency.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use clusterd::client::kubeconfig::Access;
use clusterd::stdx::tasks::Tasks;

/// Large enough that no answer waits for window updates, in bytes.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// One connection to etcd, as clusterd's clients have one each.
#[derive(Clone)]
pub struct Etcd {
    sender: SendRequest<Full<Bytes>>,
    url: String,
}

fn tls(access: &Access) -> anyhow::Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&access.authority) {
        roots.add(certificate?)?;
    }
    let (chain, key) = access.identity.as_ref().context("the kubeconfig has no certificate")?;
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A length-delimited protobuf field.
fn field(number: u8, value: &[u8], into: &mut BytesMut) {
    into.put_u8(number << 3 | 2);
    let mut length = value.len();
    while length > 0x7f {
        into.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    into.put_u8(length as u8);
    into.put_slice(value);
}

impl Etcd {
    pub async fn connect(url: &str, access: &Access, tasks: &Tasks) -> anyhow::Result<Self> {
        let uri: Uri = url.parse()?;
        let host = uri.host().context("etcd's URL has no host")?.to_owned();
        let tcp = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(2379))).await?;
        tcp.set_nodelay(true)?;
        let stream = tls(access)?.connect(ServerName::try_from(host)?, tcp).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        tasks.spawn_once("etcd connection", async move {
            let _ = connection.await;
        });
        Ok(Self { sender, url: url.trim_end_matches('/').to_owned() })
    }

    /// One unary call; gives the bytes of its answer.
    async fn call(&mut self, method: &str, fields: &[(u8, &[u8])]) -> anyhow::Result<usize> {
        let mut message = BytesMut::new();
        for (number, value) in fields {
            field(*number, value, &mut message);
        }
        let mut body = BytesMut::with_capacity(message.len() + 5);
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len())?);
        body.put_slice(&message);
        let request = Request::post(format!("{}/etcdserverpb.KV/{method}", self.url))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body.freeze()))?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let mut status = answer.headers().get("grpc-status").cloned();
        let (mut body, mut bytes) = (answer.into_body(), 0);
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) => bytes += data.len(),
                Err(other) => {
                    status = other.trailers_ref().and_then(|t| t.get("grpc-status").cloned());
                }
            }
        }
        anyhow::ensure!(status.is_some_and(|status| status == "0"), "etcd refused the {method}");
        Ok(bytes)
    }

    pub async fn put(&mut self, key: &str, value: &[u8]) -> anyhow::Result<usize> {
        self.call("Put", &[(1, key.as_bytes()), (2, value)]).await
    }

    /// Every key from `from` to before `to`, linearizable as a LIST is.
    pub async fn range(&mut self, from: &str, to: &str) -> anyhow::Result<usize> {
        self.call("Range", &[(1, from.as_bytes()), (2, to.as_bytes())]).await
    }
}
