//! Kubeconfig files, as kubectl and our own `ctl` read them.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Identity, Result, files};

/// What a kubeconfig with one cluster and one user says.
#[derive(Clone, Debug)]
pub struct Kubeconfig {
    /// The server's URL.
    pub server: String,
    /// Its CA, in PEM.
    pub ca_pem: String,
    /// The user's name in the file.
    pub user: String,
    /// The user's certificate and key.
    pub identity: Identity,
}

impl Kubeconfig {
    /// The file's text.
    pub fn to_yaml(&self) -> String {
        let Self { server, user, .. } = self;
        let ca = STANDARD.encode(&self.ca_pem);
        let certificate = STANDARD.encode(&self.identity.certificate_pem);
        let key = STANDARD.encode(&self.identity.key_pem);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: clusterd\n  cluster:\n    \
             server: {server}\n    certificate-authority-data: {ca}\nusers:\n- name: {user}\n  \
             user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
             contexts:\n- name: clusterd\n  context:\n    cluster: clusterd\n    user: {user}\n\
             current-context: clusterd\npreferences: {{}}\n"
        )
    }
}

/// Writes a kubeconfig that only its owner may read; leaves a file alone that says the same.
pub fn write(path: &Path, kubeconfig: &Kubeconfig) -> Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
        && !parent.exists()
    {
        files::make_dir(parent)?;
    }
    let text = kubeconfig.to_yaml();
    if files::read(path)?.as_deref() == Some(text.as_str()) {
        return Ok(());
    }
    files::write(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::schema::decode::yaml_documents;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_yaml_that_names_server_and_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/kubeconfig.yaml");
        let kubeconfig = Kubeconfig {
            server: "https://127.0.0.1:6443".to_owned(),
            ca_pem: "CA".to_owned(),
            user: "admin".to_owned(),
            identity: Identity { certificate_pem: "C".to_owned(), key_pem: "K".to_owned() },
        };
        write(&path, &kubeconfig).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        let value = yaml_documents(text.as_bytes()).unwrap().remove(0);
        assert_eq!(value["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
        assert_eq!(value["users"][0]["user"]["client-key-data"], "Sw==");
        assert_eq!(value["current-context"], "clusterd");
    }
}
