//! One invocation: who we are, where the API is, and the requests that verbs share.
//!
//! Why requests are made here: paging, impersonation and the choice of namespace are the same for
//! every verb.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use http::{Request, header};
use http_body_util::Full;
use tokio::sync::OnceCell;

use super::kinds::{self, Kind};
use crate::client::http::{Http, list_path};
use crate::client::{Client, ListOptions, Target, kubeconfig};
use crate::config;
use crate::object::status::{Result, Status};
use crate::object::{Value, meta};
use crate::stdx::tasks::Tasks;

/// Objects a page of a list holds, as kubectl asks for them.
const PAGE_OBJECTS: u64 = 500;

/// Flags that every verb takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// The kubeconfig; otherwise $KUBECONFIG, /etc/clusterd/kubeconfig.yaml, ~/.kube/config
    #[arg(long, global = true, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig other than its current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace
    #[arg(long, short, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Act as this user
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,
    /// Act as a member of this group; may be repeated
    #[arg(long, global = true, value_name = "GROUP", requires = "as_user")]
    pub as_group: Vec<String>,
    /// Say which requests are made
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Access to one cluster.
pub struct Session {
    /// The API server.
    pub http: Http,
    /// The namespace meant where none is named.
    pub namespace: String,
    /// It was asked for by flag.
    pub namespace_given: bool,
    kinds: OnceCell<Vec<Kind>>,
}

fn kubeconfig_path(global: &Global) -> anyhow::Result<PathBuf> {
    if let Some(path) = &global.kubeconfig {
        return Ok(path.clone());
    }
    if let Some(path) = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()) {
        let paths: Vec<PathBuf> = std::env::split_paths(&path).collect();
        anyhow::ensure!(
            paths.len() == 1,
            "KUBECONFIG names {} files; merging is not supported, name one with --kubeconfig",
            paths.len()
        );
        return Ok(paths[0].clone());
    }
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    let candidates = [Some(PathBuf::from(config::KUBECONFIG)), home];
    let mut candidates = candidates.into_iter().flatten();
    candidates.find(|path| path.exists()).ok_or_else(|| {
        anyhow::anyhow!("no kubeconfig: name one with --kubeconfig or set KUBECONFIG")
    })
}

fn warn(text: &str) {
    eprintln!("Warning: {text}");
}

impl Session {
    /// Reads the kubeconfig; nothing is sent yet.
    pub fn open(global: &Global) -> anyhow::Result<Self> {
        let path = kubeconfig_path(global)?;
        let mut access = kubeconfig::load(&path, global.context.as_deref())?;
        if let Some(user) = &global.as_user {
            access.impersonate.push(("impersonate-user".to_owned(), user.clone()));
        }
        for group in &global.as_group {
            access.impersonate.push(("impersonate-group".to_owned(), group.clone()));
        }
        let agent = concat!("clusterd-ctl/", env!("CARGO_PKG_VERSION"));
        Ok(Self {
            http: Http::with_warnings(&access, agent, Tasks::new(), Some(warn))?,
            namespace: global.namespace.clone().unwrap_or(access.namespace),
            namespace_given: global.namespace.is_some(),
            kinds: OnceCell::new(),
        })
    }

    /// Everything the server serves.
    pub async fn kinds(&self) -> Result<&[Kind]> {
        let all = self.kinds.get_or_try_init(|| kinds::discover(self)).await?;
        Ok(all)
    }

    /// The kind that a word on the command line means.
    pub async fn kind(&self, word: &str) -> anyhow::Result<&Kind> {
        let all = self.kinds().await?;
        kinds::find(all, word).ok_or_else(|| kinds::unknown(word))
    }

    /// The kind of an object from a file.
    pub async fn kind_of(&self, object: &Value) -> anyhow::Result<&Kind> {
        let gvk = meta::gvk(object)
            .ok_or_else(|| anyhow::anyhow!("an object has no apiVersion or no kind"))?;
        let found = self.kinds().await?.iter().find(|kind| kind.gvk() == gvk);
        found.ok_or_else(|| {
            anyhow::anyhow!("no matches for kind {:?} in version {:?}", gvk.kind, gvk.api_version())
        })
    }

    /// An object's place; `namespace` counts only for kinds that live in one.
    pub fn target(&self, kind: &Kind, namespace: &str, name: &str) -> Target {
        let namespace = if kind.namespaced { namespace } else { "" };
        Target::object(&kind.gvr, namespace, name)
    }

    /// Reads a path as JSON of the form that `accept` names.
    pub async fn json(&self, path: &str, accept: &str) -> Result<Value> {
        let bytes = self.bytes(path, accept).await?;
        serde_json::from_slice(&bytes).map_err(Status::internal)
    }

    /// Reads a path.
    pub async fn bytes(&self, path: &str, accept: &str) -> Result<Bytes> {
        let request = Request::builder().uri(path).header(header::ACCEPT, accept);
        self.http.call(request.body(Full::default()).map_err(Status::internal)?).await
    }

    /// All pages of a list, one answer each, in the form that `accept` names.
    pub async fn pages(
        &self,
        target: &Target,
        options: &ListOptions,
        accept: &str,
    ) -> Result<Vec<Value>> {
        let mut pages = Vec::new();
        let mut options = ListOptions { limit: PAGE_OBJECTS, ..options.clone() };
        loop {
            let page = self.json(&list_path(target, &options, false), accept).await?;
            options.continue_token = meta::text(&page, &["metadata", "continue"]).to_owned();
            pages.push(page);
            if options.continue_token.is_empty() {
                return Ok(pages);
            }
        }
    }

    /// All objects of a collection, each with `apiVersion` and `kind`, and the list's revision.
    pub async fn list(
        &self,
        kind: &Kind,
        target: &Target,
        options: &ListOptions,
    ) -> Result<(Vec<Value>, String)> {
        let mut objects = Vec::new();
        let mut revision = String::new();
        for mut page in self.pages(target, options, "application/json").await? {
            revision = meta::resource_version(&page).to_owned();
            let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) else {
                continue;
            };
            objects.extend(items.into_iter().map(|item| kind.typed(item)));
        }
        Ok((objects, revision))
    }

    /// One object.
    pub async fn get(&self, target: &Target) -> Result<Value> {
        self.http.get(target).await
    }
}
