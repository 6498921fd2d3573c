//! The shape of the command line.
//!
//! Why clap's derive: help, usage errors (code 2) and completion come from the same table.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use super::ctl;
use crate::config::{self, Server};
use crate::net::cidr::Cidr;

/// Kubernetes in one executable.
#[derive(Debug, Parser)]
#[command(name = "clusterd", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the executable can be.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a master: store, API server, scheduler, controllers, and a node of its own
    Server(Box<Server>),
    /// Talk to a cluster: get, describe, apply, logs, exec, rollout …
    Ctl(Box<ctl::Ctl>),
    /// Say what this host lacks, how to mend it, and what clusterd has made on it
    Check(HostOptions),
    /// Remove everything that clusterd has made on this host
    Uninstall(UninstallOptions),
    /// Print the completion script of a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Where things of ours lie on this host.
#[derive(Args, Clone, Debug)]
pub struct HostOptions {
    /// Directory of all data
    #[arg(long, value_name = "DIR", env = "CLUSTERD_DATA_DIR", default_value = config::DATA_DIR)]
    pub data_dir: PathBuf,
    /// The container engine
    #[arg(
        long,
        value_name = "URL",
        env = "DOCKER_HOST",
        default_value = "unix:///var/run/docker.sock"
    )]
    pub docker_host: String,
    /// Port of the API
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub https_port: u16,
    /// Port that the Node object names for its kubelet
    #[arg(long, value_name = "PORT", default_value_t = config::KUBELET_PORT)]
    pub kubelet_port: u16,
    /// Range that pod addresses are taken from
    #[arg(long, value_name = "CIDR", default_value = "10.42.0.0/16")]
    pub cluster_cidr: Cidr,
    /// Range that Service addresses are taken from
    #[arg(long, value_name = "CIDR", default_value = "10.43.0.0/16")]
    pub service_cidr: Cidr,
    /// The administrator's kubeconfig
    #[arg(long, value_name = "PATH", env = "CLUSTERD_WRITE_KUBECONFIG",
          default_value = config::KUBECONFIG)]
    pub write_kubeconfig: PathBuf,
    /// Only the containers of the node of this name, where an engine serves several
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub node_name: String,
}

/// What to remove.
#[derive(Args, Clone, Debug)]
pub struct UninstallOptions {
    /// Where things lie.
    #[command(flatten)]
    pub host: HostOptions,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// The value of `--config` among raw arguments.
pub fn config_argument(arguments: &[OsString]) -> Option<OsString> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--config") => return rest.next().cloned(),
            Some(text) => {
                if let Some(value) = text.strip_prefix("--config=") {
                    return Some(value.into());
                }
            }
            None => {}
        }
    }
    None
}

/// The long flags of a role, which a file may set.
pub fn flag_names(role: &str) -> Vec<String> {
    let command = Cli::command();
    let role = command.find_subcommand(role);
    let flags = role.into_iter().flat_map(clap::Command::get_arguments);
    let names = flags.filter_map(|flag| flag.get_long()).map(str::to_owned);
    names.filter(|name| name != "config" && name != "help").collect()
}

/// What the file says, without the flags that the command line or the environment sets.
pub fn without_overridden(from_file: Vec<String>, given: &[OsString]) -> Vec<String> {
    let command = Cli::command();
    let server = command.find_subcommand("server");
    let in_environment = |name: &str| {
        let flag =
            server.and_then(|role| role.get_arguments().find(|flag| flag.get_long() == Some(name)));
        flag.and_then(clap::Arg::get_env).is_some_and(|name| std::env::var_os(name).is_some())
    };
    let on_line = |name: &str| {
        given.iter().filter_map(|argument| argument.to_str()).any(|argument| {
            let flag = argument.split('=').next().unwrap_or("");
            flag.strip_prefix("--") == Some(name)
        })
    };
    let name_of = |argument: &str| {
        argument.trim_start_matches('-').split('=').next().unwrap_or("").to_owned()
    };
    from_file
        .into_iter()
        .filter(|argument| !on_line(&name_of(argument)) && !in_environment(&name_of(argument)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_command_line_beats_the_file() {
        let file = vec!["--https-port=1".to_owned(), "--tls-san=a".to_owned()];
        let given = [OsString::from("--https-port"), OsString::from("2")];
        assert_eq!(without_overridden(file, &given), ["--tls-san=a"]);
        assert!(flag_names("server").contains(&"cluster-dns".to_owned()));
    }
}
