//! Lifecycle hooks: what runs just after a start and just before a stop.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Host;
use super::engine::{ExecSpec, Output};
use super::httpget::Get;
use super::pods::Unit;
use futures::StreamExt;

/// How long an HTTP hook may take; exec hooks have the pod's grace.
const HTTP_HOOK_TIMEOUT: Duration = Duration::from_secs(120);
/// Output of a command that is kept.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// Runs a command to its end: what it printed, and its exit code.
pub async fn run_command(
    host: &Host,
    container: &str,
    command: &[String],
) -> Result<(String, i32), String> {
    let spec = ExecSpec { command: command.to_vec(), tty: false, stdin: false };
    let session = host.engine.exec(container, &spec).await.map_err(|error| error.to_string())?;
    let mut output = session.output;
    let mut bytes = Vec::new();
    while let Some(chunk) = output.next().await {
        let (Output::Stdout(chunk) | Output::Stderr(chunk)) =
            chunk.map_err(|error| error.to_string())?;
        let room = OUTPUT_BYTES_MAX.saturating_sub(bytes.len());
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    let code = host.engine.exec_exit(&session.id).await.map_err(|error| error.to_string())?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), code.unwrap_or(-1)))
}

/// The number of a port that is given by number or by name.
pub fn port_of(port: &IntOrString, unit: &Unit) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => match name.parse() {
            Ok(number) => Some(number),
            Err(_) => {
                let mut ports = unit.spec.ports.iter().flatten();
                let named = ports.find(|port| port.name.as_ref() == Some(name));
                let Some(named) = named else {
                    return Err(format!("couldn't find port: {name} in {}", unit.name()));
                };
                Some(named.container_port)
            }
        },
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port number: {port:?}"))
}

/// The request that an HTTP action means.
pub fn request(
    action: &core::HTTPGetAction,
    unit: &Unit,
    address: Option<IpAddr>,
    agent: &str,
    timeout: Duration,
) -> Result<Get, String> {
    let own = action.host.clone().filter(|host| !host.is_empty());
    let host = own.or_else(|| address.map(|address| address.to_string())).unwrap_or_default();
    let path = action.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let headers = action.http_headers.iter().flatten();
    Ok(Get {
        scheme: action.scheme.as_deref().unwrap_or("HTTP").to_lowercase(),
        host,
        port: port_of(&action.port, unit)?,
        path: format!("{slash}{path}"),
        headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
        agent: agent.to_owned(),
        timeout,
    })
}

/// Runs a hook to its end; the error says what went wrong.
pub async fn run(
    host: &Host,
    unit: &Unit,
    container: &str,
    address: Option<IpAddr>,
    hook: &core::LifecycleHandler,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let (output, code) = run_command(host, container, &command).await?;
        return match code {
            0 => Ok(()),
            code => Err(format!("command {command:?} exited with {code}: {output}")),
        };
    }
    if let Some(action) = &hook.http_get {
        let get = request(action, unit, address, "kube-lifecycle", HTTP_HOOK_TIMEOUT)?;
        let answer = get.send().await?;
        return match answer.code {
            200..400 => Ok(()),
            code => Err(format!("HTTP hook answered with {code}")),
        };
    }
    if let Some(sleep) = &hook.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        return Ok(());
    }
    Err("invalid handler: no exec, httpGet or sleep".to_owned())
}
