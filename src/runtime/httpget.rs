//! A plain HTTP GET for probes and hooks, over TLS without checking who answers (as upstream).
//!
//! Why not a client library: a probe is one request with a deadline on a connection of its own, and
//! its error texts are part of what users read in events.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How much of an answer is read (upstream's 10 KiB).
const BODY_BYTES_MAX: usize = 10 * 1024;
/// Redirects that are followed to the same host.
const REDIRECTS_MAX: usize = 10;

/// What to fetch.
#[derive(Clone, Debug, Default)]
pub struct Get {
    /// "http" or "https".
    pub scheme: String,
    /// Name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// With its query.
    pub path: String,
    /// Headers beyond the usual.
    pub headers: Vec<(String, String)>,
    /// For the user agent: "kube-probe" or "kube-lifecycle".
    pub agent: String,
    /// For all of it.
    pub timeout: Duration,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The beginning of the body.
    pub body: String,
    /// Where it points elsewhere.
    location: Option<String>,
}

impl Get {
    fn url(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        format!("{}://{host}:{}{}", self.scheme, self.port, self.path)
    }

    /// Sends it, following redirects to the same host. A redirect elsewhere is the answer.
    pub async fn send(mut self) -> Result<Answer, String> {
        let deadline = tokio::time::Instant::now() + self.timeout;
        for _ in 0..=REDIRECTS_MAX {
            let url = self.url();
            let answer = match tokio::time::timeout_at(deadline, self.once()).await {
                Ok(answer) => answer.map_err(|error| format!("Get {url:?}: {error}"))?,
                Err(_) => {
                    return Err(format!(
                        "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while \
                         awaiting headers)"
                    ));
                }
            };
            let Some(location) = answer.location.clone().filter(|_| answer.code / 100 == 3) else {
                return Ok(answer);
            };
            if let Some(path) = location.strip_prefix('/').filter(|rest| !rest.starts_with('/')) {
                self.path = format!("/{path}");
                continue;
            }
            let Ok(next) = location.parse::<http::Uri>() else { return Ok(answer) };
            if next.host() != Some(self.host.as_str()) {
                return Ok(answer);
            }
            self.scheme = next.scheme_str().unwrap_or("http").to_owned();
            let usual = if self.scheme == "https" { 443 } else { 80 };
            self.port = next.port_u16().unwrap_or(usual);
            self.path = next.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        }
        Err(format!("Get {:?}: stopped after {REDIRECTS_MAX} redirects", self.url()))
    }

    async fn once(&self) -> Result<Answer, String> {
        let stream = dial(&self.host, self.port).await?;
        if self.scheme != "https" {
            return self.over(stream).await;
        }
        let config = tls_config()?;
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        self.over(stream).await
    }

    async fn over<S>(&self, stream: S) -> Result<Answer, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let text = |error: hyper::Error| error.to_string();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        let exchange = async move {
            let response = sender.send_request(self.request()?).await.map_err(text)?;
            let code = response.status().as_u16();
            let location = response.headers().get(http::header::LOCATION);
            let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            // A longer body is cut; the code decides.
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok(Answer { code, body, location })
        };
        // The connection is driven beside the exchange and ends with it.
        tokio::select! {
            answer = exchange => answer,
            Err(error) = connection => Err(error.to_string()),
        }
    }

    fn request(&self) -> Result<http::Request<Empty<Bytes>>, String> {
        let mut builder = http::Request::get(&self.path);
        let given = |name: &str| self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        for (name, value) in &self.headers {
            if !value.is_empty() {
                builder = builder.header(name, value);
            }
        }
        if !given("host") {
            builder = builder.header("Host", format!("{}:{}", self.host, self.port));
        }
        if !given("user-agent") {
            builder = builder.header("User-Agent", format!("{}/1.36", self.agent));
        }
        if !given("accept") {
            builder = builder.header("Accept", "*/*");
        }
        builder.header("Connection", "close").body(Empty::new()).map_err(|error| error.to_string())
    }
}

/// Connects, with Go's words where it fails.
pub async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
            _ => error.to_string(),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        format!("dial tcp {host}:{port}: {reason}")
    })
}

fn tls_config() -> Result<Arc<rustls::ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let verifier = Arc::new(Anyone { provider });
    Ok(Arc::new(
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth(),
    ))
}

/// Takes any certificate: a probe asks whether something answers, not who.
#[derive(Debug)]
struct Anyone {
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::tasks::Tasks;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers each connection with the next text.
    async fn server(answers: Vec<&'static str>) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Tasks::new().spawn_once("server", async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                assert!(stream.read(&mut buffer).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        port
    }

    fn get(port: u16) -> Get {
        Get {
            scheme: "http".into(),
            host: "127.0.0.1".into(),
            port,
            path: "/".into(),
            agent: "kube-probe".into(),
            timeout: Duration::from_secs(5),
            ..Get::default()
        }
    }

    #[tokio::test]
    async fn redirects_to_the_same_host_are_followed() {
        let moved = "HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n";
        let fine = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let answer = get(server(vec![moved, fine]).await).send().await.unwrap();
        assert_eq!((answer.code, answer.body.as_str()), (200, "ok"));
        let away = "HTTP/1.1 302 Found\r\nlocation: http://a.b/\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(get(server(vec![away]).await).send().await.unwrap().code, 302);
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_in_upstreams_words() {
        let error = get(1).send().await.unwrap_err();
        let wanted =
            "Get \"http://127.0.0.1:1/\": dial tcp 127.0.0.1:1: connect: connection refused";
        assert_eq!(error, wanted);
    }
}
