//! `ctl create`: objects from files, a namespace, or a deployment.
//!
//! Why two kinds only: they are what a first tour needs; everything else is a file.

use clap::{Args, Subcommand};
use serde_json::json;

use super::errors::{self, InFile};
use super::files::Files;
use super::output::{self, Form};
use super::resources;
use super::session::Session;
use crate::client::{Client, WriteOptions};
use crate::object::{Value, meta};

/// Create objects from a file, or a namespace or deployment from arguments
#[derive(Args, Clone, Debug)]
pub struct Create {
    #[command(flatten)]
    files: Files,
    /// server: check everything, store nothing; client: send nothing, print with -o
    #[arg(long, global = true, value_name = "server|client", value_parser = ["server", "client"])]
    dry_run: Option<String>,
    /// json, yaml or name
    #[arg(
        long,
        short = 'o',
        global = true,
        value_name = "FORM",
        default_value = "",
        hide_default_value = true
    )]
    output: Form,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// A namespace
    #[command(visible_alias = "ns")]
    Namespace {
        /// Its name
        name: String,
    },
    /// A deployment
    #[command(visible_alias = "deploy")]
    Deployment {
        /// Its name
        name: String,
        /// The image of its container; repeated, several containers
        #[arg(long, required = true)]
        image: Vec<String>,
        /// How many pods
        #[arg(long, short, default_value_t = 1)]
        replicas: u32,
        /// A port that the container listens on
        #[arg(long)]
        port: Option<u16>,
        /// The command, after --
        #[arg(last = true)]
        command: Vec<String>,
    },
}

impl Create {
    /// Runs the verb.
    pub async fn run(&self, session: &Session) -> anyhow::Result<i32> {
        let objects = match &self.what {
            Some(what) => vec![(String::new(), what.object()?)],
            None => {
                anyhow::ensure!(!self.files.filename.is_empty(), "must specify -f");
                let found = resources::from_files(session, &self.files).await?;
                found.into_iter().map(|one| (one.file, one.object)).collect()
            }
        };
        let mut code = 0;
        for (file, object) in objects {
            if let Err(error) = self.create(session, &file, object).await {
                code = super::super::EXIT_FAILURE;
                match errors::text(&error) {
                    Some(text) => eprintln!("{text}"),
                    None => return Err(error),
                }
            }
        }
        Ok(code)
    }

    async fn create(&self, session: &Session, file: &str, mut object: Value) -> anyhow::Result<()> {
        let kind = session.kind_of(&object).await?;
        let namespace = match meta::namespace(&object) {
            "" => session.namespace.clone(),
            namespace => namespace.to_owned(),
        };
        let sent = self.dry_run.as_deref() != Some("client");
        if kind.namespaced && (sent || session.namespace_given) {
            meta::set(&mut object, &["metadata", "namespace"], namespace.as_str());
        }
        let note = match self.dry_run.as_deref() {
            Some("client") => " (dry run)",
            Some(_) => " (server dry run)",
            None => "",
        };
        let created = if !sent {
            object
        } else {
            let options = WriteOptions {
                dry_run: self.dry_run.is_some(),
                field_manager: "kubectl-create".to_owned(),
                field_validation: "Strict".to_owned(),
                ..WriteOptions::default()
            };
            let target = session.target(kind, &namespace, "");
            session.http.create(&target, object, &options).await.map_err(|status| {
                match file.is_empty() || status.reason == "Invalid" {
                    true => anyhow::Error::new(status),
                    false => {
                        let source_name = file.to_owned();
                        anyhow::Error::new(InFile { verb: "creating", source_name, status })
                    }
                }
            })?
        };
        let named = kind.named(meta::name(&created));
        match self.output {
            Form::Table | Form::Wide => output::print(&format!("{named} created{note}\n")),
            Form::Name => output::print(&format!("{named}\n")),
            form => output::print(&output::object(&created, form)?),
        }
    }
}

impl What {
    fn object(&self) -> anyhow::Result<Value> {
        match self {
            Self::Namespace { name } => {
                let metadata = json!({ "name": name });
                Ok(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
            }
            Self::Deployment { name, image, replicas, port, command } => {
                deployment(name, image, *replicas, *port, command)
            }
        }
    }
}

fn deployment(
    name: &str,
    image: &[String],
    replicas: u32,
    port: Option<u16>,
    command: &[String],
) -> anyhow::Result<Value> {
    anyhow::ensure!(
        image.len() == 1 || command.is_empty(),
        "cannot specify multiple --image options and command"
    );
    let container = |image: &String| {
        let mut container = json!({"name": container_name(image), "image": image});
        if !command.is_empty() {
            container["command"] = json!(command);
        }
        if let Some(port) = port {
            container["ports"] = json!([{ "containerPort": port }]);
        }
        container
    };
    let containers: Vec<Value> = image.iter().map(container).collect();
    let labels = json!({ "app": name });
    Ok(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }))
}

/// The last part of an image's name, fit for a container's name.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let name = last.split(['@', ':']).next().unwrap_or(last);
    name.to_lowercase().replace(['_', '.'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_named_after_its_image() {
        assert_eq!(container_name("registry.k8s.io/e2e/My_nginx.x:1.2"), "my-nginx-x");
        assert_eq!(container_name("host:5000/a@sha256:00"), "a");
    }
}
