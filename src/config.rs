//! Flags, file and environment become one validated configuration.
//!
//! Why one place: `--https-port 6443`, `https-port: 6443` in the file and `CLUSTERD_HTTPS_PORT` must
//! mean the same and be refused in the same words. A flag beats the environment, which beats the
//! file, which beats the default. Secrets come from files, standard input or the environment, never
//! from an argument: arguments are visible to every process of the machine.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::net::cidr::Cidr;

/// Where the configuration file lies unless `--config` says otherwise.
pub const FILE: &str = "/etc/clusterd/config.yaml";
/// Where data lies unless `--data-dir` says otherwise.
pub const DATA_DIR: &str = "/var/lib/clusterd";
/// Where the administrator's kubeconfig is written.
pub const KUBECONFIG: &str = "/etc/clusterd/kubeconfig.yaml";
/// The kubelet's port.
pub const KUBELET_PORT: u16 = 10_250;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How Services reach their endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProxyMode {
    /// Verdict and NAT maps of nftables.
    #[default]
    Nftables,
    /// The kernel's virtual server; not built yet.
    Ipvs,
}

/// What `clusterd server` is started with. Every flag is also a key of the configuration file.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// Directory of all data: store, certificates, pod volumes
    #[arg(long, value_name = "DIR", env = "CLUSTERD_DATA_DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME", env = "CLUSTERD_NODE_NAME")]
    pub node_name: Option<String>,
    /// Address of this node [default: the address that the default route uses]
    #[arg(long, value_name = "IP", env = "CLUSTERD_NODE_IP")]
    pub node_ip: Option<IpAddr>,
    /// Address to listen on
    #[arg(long, value_name = "IP", env = "CLUSTERD_BIND_ADDRESS", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Address that others reach this server at [default: the node's]
    #[arg(long, value_name = "IP", env = "CLUSTERD_ADVERTISE_ADDRESS")]
    pub advertise_address: Option<IpAddr>,
    /// Port of the API
    #[arg(long, value_name = "PORT", env = "CLUSTERD_HTTPS_PORT", default_value_t = 6443)]
    pub https_port: u16,
    /// Port that the Node object names for its kubelet. Nothing listens there yet: the API server
    /// reaches the node of its own process directly
    #[arg(long, value_name = "PORT", default_value_t = KUBELET_PORT)]
    pub kubelet_port: u16,
    /// Another name or address to put into the server's certificate (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub tls_san: Vec<String>,
    /// Run no pods on this machine
    #[arg(long)]
    pub disable_agent: bool,
    /// Where to write the administrator's kubeconfig
    #[arg(long, value_name = "PATH", env = "CLUSTERD_WRITE_KUBECONFIG", default_value = KUBECONFIG)]
    pub write_kubeconfig: PathBuf,
    /// Range that pod addresses are taken from
    #[arg(long, value_name = "CIDR", default_value = "10.42.0.0/16")]
    pub cluster_cidr: Cidr,
    /// Range that Service addresses are taken from
    #[arg(long, value_name = "CIDR", default_value = "10.43.0.0/16")]
    pub service_cidr: Cidr,
    /// Address of the cluster's DNS, inside the Service range
    #[arg(long, value_name = "IP", default_value = "10.43.0.10")]
    pub cluster_dns: Ipv4Addr,
    /// Domain of the cluster's names
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// The container engine
    #[arg(
        long,
        value_name = "URL",
        env = "DOCKER_HOST",
        default_value = "unix:///var/run/docker.sock"
    )]
    pub docker_host: String,
    /// How Services reach their endpoints
    #[arg(long, value_enum, default_value = "nftables")]
    pub proxy_mode: ProxyMode,
    /// Configuration file: every flag by its name
    #[arg(long, value_name = "FILE", env = "CLUSTERD_CONFIG")]
    pub config: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Log more (twice: much more)
    #[arg(short, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// A configuration that cannot be used; the process ends with code 64.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("configuration file {path}: {what}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// A value does not go with another.
    #[error("{0}")]
    Value(String),
}

impl Server {
    /// Checks what no single flag can: that the values go together.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Value(what));
        if self.proxy_mode == ProxyMode::Ipvs {
            return wrong("--proxy-mode ipvs: not built yet; use --proxy-mode nftables".to_owned());
        }
        if !self.service_cidr.contains(self.cluster_dns) {
            return wrong(format!(
                "--cluster-dns {} lies outside --service-cidr {}",
                self.cluster_dns, self.service_cidr
            ));
        }
        let (pods, services) = (self.cluster_cidr, self.service_cidr);
        if pods.overlaps(services) {
            return wrong(format!("--cluster-cidr {pods} and --service-cidr {services} overlap"));
        }
        if !(8..=24).contains(&pods.length()) {
            return wrong(format!(
                "--cluster-cidr {pods}: must be between /8 and /24, each node takes a /24 of it"
            ));
        }
        if !(8..=28).contains(&services.length()) {
            return wrong(format!("--service-cidr {services} must be between /8 and /28"));
        }
        if self.bind_address.is_ipv6() || self.node_ip.is_some_and(|ip| ip.is_ipv6()) {
            return wrong("IPv6 addresses are not supported yet".to_owned());
        }
        let name = self.node_name()?;
        if let Some(fault) = crate::api::kind::dns_subdomain_fault(&name) {
            return wrong(format!("--node-name {name:?}: {fault}"));
        }
        Ok(())
    }

    /// The node's name: as given, or the host's in lower case.
    pub fn node_name(&self) -> Result<String, Error> {
        if let Some(name) = &self.node_name {
            return Ok(name.clone());
        }
        let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        if name.is_empty() {
            return Err(Error::Value("this host has no name: use --node-name".to_owned()));
        }
        Ok(name)
    }

    /// The address of the Service `kubernetes`, the first of the range.
    pub fn service_ip(&self) -> Ipv4Addr {
        self.service_cidr.nth(1).unwrap_or(self.service_cidr.base())
    }

    /// The node's address: as given, or the one that the default route uses, or loopback.
    pub fn node_ip(&self) -> IpAddr {
        self.node_ip.or_else(routed_address).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

/// The address that packets to the outside would carry. Connecting a UDP socket sends nothing.
fn routed_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

/// The arguments that a configuration file stands for, to be put before those of the command line.
///
/// `allowed` are the long names of the command's flags: an unknown key is refused with its name.
pub fn file_arguments(path: &Path, allowed: &[String]) -> Result<Vec<String>, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let fault = |what: String| Error::File { path: path.to_owned(), what };
    let parsed: Value =
        serde_yaml::from_str(&text).map_err(|error| fault(format!("no valid YAML: {error}")))?;
    let map = match parsed {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        _ => return Err(fault("must be a map of flag names to values".to_owned())),
    };
    let mut arguments = Vec::new();
    for (key, value) in map {
        if !allowed.contains(&key) {
            return Err(fault(format!("unknown key {key:?}")));
        }
        let values = match value {
            Value::Array(items) => items,
            other => vec![other],
        };
        for value in values {
            match value {
                Value::Bool(true) => arguments.push(format!("--{key}")),
                Value::Bool(false) | Value::Null => {}
                Value::String(text) => arguments.push(format!("--{key}={text}")),
                Value::Number(number) => arguments.push(format!("--{key}={number}")),
                _ => return Err(fault(format!("{key}: must be a text, a number or a list"))),
            }
        }
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        server: Server,
    }

    fn parse(arguments: &[&str]) -> Server {
        let all = ["clusterd", "--node-name", "n"].iter().chain(arguments);
        Line::try_parse_from(all).map_err(|error| error.to_string()).unwrap().server
    }

    #[test]
    fn values_must_go_together() {
        assert!(parse(&[]).validate().is_ok());
        for wrong in [
            &["--cluster-dns", "10.44.0.10"][..],
            &["--cluster-cidr", "10.43.0.0/16"],
            &["--proxy-mode", "ipvs"],
            &["--node-name", "Not_A_Name"],
        ] {
            assert!(
                Line::try_parse_from(["clusterd"].iter().chain(wrong))
                    .unwrap()
                    .server
                    .validate()
                    .is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_file_is_read_as_flags_and_unknown_keys_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        let text = "https-port: 7443\ntls-san: [a, b]\ndisable-agent: true\n";
        std::fs::write(&path, text).unwrap();
        let allowed = ["https-port", "tls-san", "disable-agent"].map(str::to_owned);
        let arguments = file_arguments(&path, &allowed).unwrap();
        assert_eq!(
            arguments,
            ["--disable-agent", "--https-port=7443", "--tls-san=a", "--tls-san=b"]
        );
        std::fs::write(&path, "htps-port: 1\n").unwrap();
        let error = file_arguments(&path, &allowed).unwrap_err();
        assert!(error.to_string().contains("unknown key \"htps-port\""));
    }
}
