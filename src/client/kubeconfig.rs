//! Reads a kubeconfig: where the API is, whom to trust, who we are.
//!
//! Why our own few lines: only the fields that a client certificate or a token need are honoured;
//! what is not (exec plug-ins, auth providers) is refused by name instead of ignored.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::object::Value;
use crate::object::meta::text;
use crate::object::schema::decode::{self, Validation};

/// How to reach and convince one API server.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// As in `https://127.0.0.1:6443`.
    pub server: String,
    /// PEM certificates to trust.
    pub authority: Vec<u8>,
    /// The name expected in the server's certificate, if it is not the host of `server`.
    pub tls_server_name: Option<String>,
    /// PEM client certificate chain and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// A bearer token.
    pub token: Option<String>,
    /// Headers that ask to act as someone else (`impersonate-user`, `impersonate-group`).
    pub impersonate: Vec<(String, String)>,
    /// The context's namespace, "default" when it names none.
    pub namespace: String,
}

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// It is not what it should be.
    #[error("kubeconfig {0}: {1}")]
    Content(PathBuf, String),
}

/// Reads `path`; `context` overrides its `current-context`.
pub fn load(path: &Path, context: Option<&str>) -> Result<Access, Error> {
    let body = std::fs::read(path).map_err(|error| Error::Read(path.to_owned(), error))?;
    let wrong = |what: String| Error::Content(path.to_owned(), what);
    let config = decode::yaml(&body, None, Validation::Ignore)
        .map_err(|status| wrong(status.message))?
        .value;
    let context = context.unwrap_or_else(|| text(&config, &["current-context"])).to_owned();
    let context = entry(&config, "contexts", "context", &context).map_err(wrong)?;
    let cluster =
        entry(&config, "clusters", "cluster", text(context, &["cluster"])).map_err(wrong)?;
    let user = entry(&config, "users", "user", text(context, &["user"])).map_err(wrong)?;
    for unsupported in ["exec", "auth-provider", "username"] {
        if user.get(unsupported).is_some() {
            return Err(wrong(format!("users: {unsupported} is not supported")));
        }
    }
    if cluster.get("insecure-skip-tls-verify") == Some(&Value::Bool(true)) {
        return Err(wrong("insecure-skip-tls-verify is not supported".to_owned()));
    }
    let base = path.parent().unwrap_or(Path::new("."));
    let data = |from: &Value, field: &str| file_or_data(from, field, base);
    let authority = data(cluster, "certificate-authority").map_err(wrong)?;
    let certificate = data(user, "client-certificate").map_err(wrong)?;
    let key = data(user, "client-key").map_err(wrong)?;
    let token = match (text(user, &["token"]), text(user, &["tokenFile"])) {
        ("", "") => None,
        ("", file) => {
            let file = base.join(file);
            let read = std::fs::read_to_string(&file);
            Some(read.map_err(|error| Error::Read(file, error))?.trim().to_owned())
        }
        (token, _) => Some(token.to_owned()),
    };
    let or = |text: &str, default: &str| if text.is_empty() { default } else { text }.to_owned();
    Ok(Access {
        server: or(text(cluster, &["server"]), "https://127.0.0.1:6443"),
        authority: authority.unwrap_or_default(),
        tls_server_name: cluster.get("tls-server-name").and_then(Value::as_str).map(str::to_owned),
        identity: certificate.zip(key),
        token,
        impersonate: Vec::new(),
        namespace: or(text(context, &["namespace"]), "default"),
    })
}

fn entry<'a>(config: &'a Value, list: &str, field: &str, name: &str) -> Result<&'a Value, String> {
    let entries = config.get(list).and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .find(|entry| text(entry, &["name"]) == name)
        .and_then(|entry| entry.get(field))
        .ok_or_else(|| format!("{list} has no entry {name:?}"))
}

fn file_or_data(from: &Value, field: &str, base: &Path) -> Result<Option<Vec<u8>>, String> {
    let inline = text(from, &[&format!("{field}-data")]);
    if !inline.is_empty() {
        let bytes = STANDARD.decode(inline);
        return bytes.map(Some).map_err(|_| format!("{field}-data is no base64"));
    }
    match text(from, &[field]) {
        "" => Ok(None),
        file => {
            let read = std::fs::read(base.join(file));
            read.map(Some).map_err(|error| format!("{field} {file}: {error}"))
        }
    }
}
