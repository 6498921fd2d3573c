//! The engine trait over the Docker Engine API; with `docker/` the only place that knows bollard.
//!
//! Why one client a request class: bollard has a single timeout per client, and a stop with a long
//! grace or a pull may rightly take longer than any question about state.

mod convert;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bollard::auth::DockerCredentials;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ContainerUpdateBody;
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use super::engine::{
    Container, ContainerSpec, Credentials, Engine, EngineError, EngineEvent, EngineInfo, ExecSpec,
    Image, LogQuery, Output, OutputStream, Resources, Result, Session, Usage,
};

/// How long a question about state may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a pull or load may take to begin its answer.
const LONG_TIMEOUT: Duration = Duration::from_secs(3600);
/// What a stop may take beyond its grace.
const STOP_MARGIN: Duration = Duration::from_secs(30);
/// Containers that are asked about at the same time when listing.
const INSPECTS_AT_ONCE: usize = 8;

/// A Docker Engine behind a unix socket.
pub struct DockerEngine {
    path: String,
    client: OnceCell<Docker>,
}

impl DockerEngine {
    /// An engine at `host`, as in `unix:///var/run/docker.sock`. Nothing is sent yet.
    pub fn new(host: &str) -> Result<Self> {
        let Some(path) = host.strip_prefix("unix://") else {
            let text = format!("docker host {host:?}: only unix:// sockets are supported");
            return Err(EngineError::Failed(text));
        };
        Ok(Self { path: path.to_owned(), client: OnceCell::new() })
    }

    /// The client, with the API version that both sides know.
    async fn client(&self) -> Result<&Docker> {
        let connect = || async {
            let seconds = ANSWER_TIMEOUT.as_secs();
            let docker = Docker::connect_with_unix(&self.path, seconds, API_DEFAULT_VERSION)
                .map_err(convert::error)?;
            docker.negotiate_version().await.map_err(convert::error)
        };
        self.client.get_or_try_init(connect).await
    }

    /// A client that waits longer.
    async fn patient(&self, timeout: Duration) -> Result<Docker> {
        Ok(self.client().await?.clone().with_timeout(timeout))
    }
}

fn filter(label: &str, value: &str) -> HashMap<String, Vec<String>> {
    let wanted = if value.is_empty() { label.to_owned() } else { format!("{label}={value}") };
    HashMap::from([("label".to_owned(), vec![wanted])])
}

/// Standard input never comes back as output.
fn outputs(
    stream: impl futures::Stream<Item = std::result::Result<LogOutput, bollard::errors::Error>>
    + Send
    + 'static,
) -> OutputStream {
    let convert = |chunk| match chunk {
        Ok(LogOutput::StdErr { message }) => Some(Ok(Output::Stderr(message))),
        Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
            Some(Ok(Output::Stdout(message)))
        }
        Ok(LogOutput::StdIn { .. }) => None,
        Err(error) => Some(Err(convert::error(error))),
    };
    stream.filter_map(move |chunk| std::future::ready(convert(chunk))).boxed()
}

#[async_trait]
impl Engine for DockerEngine {
    async fn info(&self) -> Result<EngineInfo> {
        let info = self.client().await?.info().await.map_err(convert::error)?;
        Ok(convert::info(info))
    }

    async fn list(&self, label: &str, value: &str) -> Result<Vec<Container>> {
        let client = self.client().await?;
        let options = query::ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filter(label, value))
            .build();
        let found = client.list_containers(Some(options)).await.map_err(convert::error)?;
        let inspect = |summary: bollard::models::ContainerSummary| async move {
            match self.inspect(summary.id.as_deref().unwrap_or("")).await {
                Err(EngineError::NotFound(_)) => Ok(None),
                other => other.map(Some),
            }
        };
        futures::stream::iter(found)
            .map(inspect)
            .buffer_unordered(INSPECTS_AT_ONCE)
            .try_filter_map(|container| std::future::ready(Ok(container)))
            .try_collect()
            .await
    }

    async fn inspect(&self, id: &str) -> Result<Container> {
        let client = self.client().await?;
        let options = None::<query::InspectContainerOptions>;
        let found = client.inspect_container(id, options).await.map_err(convert::error)?;
        convert::container(found)
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String> {
        let options = query::CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let client = self.client().await?;
        let body = convert::create_body(spec);
        let made = client.create_container(Some(options), body).await.map_err(convert::error)?;
        for warning in made.warnings {
            tracing::debug!(container = %spec.name, "engine: {warning}");
        }
        Ok(made.id)
    }

    async fn start(&self, id: &str) -> Result<()> {
        let options = None::<query::StartContainerOptions>;
        self.client().await?.start_container(id, options).await.map_err(convert::error)
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        let client = self.patient(grace + STOP_MARGIN).await?;
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = query::StopContainerOptionsBuilder::default().t(seconds).build();
        match client.stop_container(id, Some(options)).await {
            // 304: it has ended already.
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 304, .. }) => {
                Ok(())
            }
            other => other.map_err(convert::error),
        }
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let options = query::RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let client = self.client().await?;
        match client.remove_container(id, Some(options)).await.map_err(convert::error) {
            // Gone already, or another removal is at it.
            Err(EngineError::NotFound(_)) => Ok(()),
            Err(EngineError::Conflict(text)) if text.contains("already in progress") => Ok(()),
            other => other,
        }
    }

    async fn update(&self, id: &str, resources: &Resources) -> Result<()> {
        let some = |number: i64| (number != 0).then_some(number);
        let body = ContainerUpdateBody {
            cpu_shares: some(resources.cpu_shares),
            cpu_quota: some(resources.cpu_quota),
            cpu_period: some(resources.cpu_period),
            memory: some(resources.memory),
            memory_swap: some(resources.memory),
            ..Default::default()
        };
        self.client().await?.update_container(id, body).await.map_err(convert::error)
    }

    async fn events(
        &self,
        label: &str,
        value: &str,
    ) -> Result<BoxStream<'static, Result<EngineEvent>>> {
        let client = self.client().await?;
        let mut filters = filter(label, value);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        let kinds = ["start", "die", "destroy"];
        filters.insert("event".to_owned(), kinds.map(str::to_owned).to_vec());
        let options = query::EventsOptionsBuilder::default().filters(&filters).build();
        // The engine answers the head of the stream at once, so a question that is answered after
        // this one shows that the stream stands.
        let stream = client.events(Some(options));
        client.ping().await.map_err(convert::error)?;
        let convert = |event: std::result::Result<_, _>| match event {
            Ok(event) => convert::event(event).map(Ok),
            Err(error) => Some(Err(convert::error(error))),
        };
        Ok(stream.filter_map(move |event| std::future::ready(convert(event))).boxed())
    }

    async fn logs(&self, id: &str, wanted: &LogQuery) -> Result<OutputStream> {
        let client = self.client().await?;
        let tail = wanted.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let since = wanted.since.map_or(0, |time| time.as_second());
        let options = query::LogsOptionsBuilder::default()
            .follow(wanted.follow)
            .stdout(wanted.stdout)
            .stderr(wanted.stderr)
            .since(i32::try_from(since).unwrap_or(i32::MAX))
            .timestamps(wanted.timestamps)
            .tail(&tail)
            .build();
        Ok(outputs(client.logs(id, Some(options))))
    }

    async fn exec(&self, id: &str, spec: &ExecSpec) -> Result<Session> {
        let client = self.client().await?;
        let config = CreateExecOptions {
            attach_stdin: Some(spec.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(!spec.tty),
            tty: Some(spec.tty),
            cmd: Some(spec.command.clone()),
            ..CreateExecOptions::<String>::default()
        };
        let made = client.create_exec(id, config).await.map_err(convert::error)?;
        let options = StartExecOptions { detach: false, tty: spec.tty, output_capacity: None };
        match client.start_exec(&made.id, Some(options)).await.map_err(convert::error)? {
            StartExecResults::Attached { output, input } => {
                Ok(Session { id: made.id, output: outputs(output), input })
            }
            StartExecResults::Detached => {
                Err(EngineError::Failed("the engine did not attach to the command".to_owned()))
            }
        }
    }

    async fn exec_exit(&self, exec: &str) -> Result<Option<i32>> {
        let found = self.client().await?.inspect_exec(exec).await.map_err(convert::error)?;
        if found.running == Some(true) {
            return Ok(None);
        }
        Ok(found.exit_code.map(|code| i32::try_from(code).unwrap_or(i32::MAX)))
    }

    async fn exec_resize(&self, exec: &str, width: u16, height: u16) -> Result<()> {
        let size = ResizeExecOptions { height, width };
        self.client().await?.resize_exec(exec, size).await.map_err(convert::error)
    }

    async fn attach(&self, id: &str, stdin: bool) -> Result<Session> {
        let options = query::AttachContainerOptionsBuilder::default()
            .stdin(stdin)
            .stdout(true)
            .stderr(true)
            .stream(true)
            .build();
        let client = self.client().await?;
        let results = client.attach_container(id, Some(options)).await.map_err(convert::error)?;
        Ok(Session { id: id.to_owned(), output: outputs(results.output), input: results.input })
    }

    async fn attach_resize(&self, id: &str, width: u16, height: u16) -> Result<()> {
        let options = query::ResizeContainerTTYOptionsBuilder::default()
            .h(i32::from(height))
            .w(i32::from(width))
            .build();
        self.client().await?.resize_container_tty(id, options).await.map_err(convert::error)
    }

    async fn usage(&self, id: &str) -> Result<Usage> {
        let options = query::StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut stream = Box::pin(self.client().await?.stats(id, Some(options)));
        match stream.next().await {
            Some(stats) => Ok(convert::usage(stats.map_err(convert::error)?)),
            None => Err(EngineError::NotFound(format!("no statistics of container {id}"))),
        }
    }

    async fn image(&self, name: &str) -> Result<Option<Image>> {
        match self.client().await?.inspect_image(name).await.map_err(convert::error) {
            Ok(image) => Ok(Some(convert::image(image))),
            Err(EngineError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn images(&self) -> Result<Vec<Image>> {
        let options = None::<query::ListImagesOptions>;
        let found = self.client().await?.list_images(options).await.map_err(convert::error)?;
        Ok(found.into_iter().map(convert::image_summary).collect())
    }

    async fn pull(&self, name: &str, credentials: Option<&Credentials>) -> Result<()> {
        let client = self.patient(LONG_TIMEOUT).await?;
        let options = query::CreateImageOptionsBuilder::default().from_image(name).build();
        let credentials = credentials.map(|known| DockerCredentials {
            username: Some(known.username.clone()),
            password: Some(known.password.clone()),
            serveraddress: Some(known.server.clone()),
            ..DockerCredentials::default()
        });
        let mut progress = client.create_image(Some(options), None, credentials);
        while let Some(step) = progress.next().await {
            step.map_err(convert::error)?;
        }
        Ok(())
    }

    async fn load(&self, archive: Bytes) -> Result<()> {
        let client = self.patient(LONG_TIMEOUT).await?;
        let options = query::ImportImageOptionsBuilder::default().quiet(true).build();
        let mut progress = client.import_image(options, bollard::body_full(archive), None);
        while let Some(step) = progress.next().await {
            step.map_err(convert::error)?;
        }
        Ok(())
    }

    async fn remove_image(&self, name: &str) -> Result<()> {
        let options = query::RemoveImageOptionsBuilder::default().build();
        match self.client().await?.remove_image(name, Some(options), None).await {
            Ok(_) => Ok(()),
            Err(error) => match convert::error(error) {
                EngineError::NotFound(_) => Ok(()),
                error => Err(error),
            },
        }
    }
}
