//! The files that make a pod's name service: `/etc/hosts`, `/etc/resolv.conf`, its host name.
//!
//! Why our own files and not the engine's: the engine writes what suits its own networks; a pod's
//! content follows dnsPolicy, dnsConfig and hostAliases.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;

use super::pods::Model;
use crate::reconcile::Object;

/// The longest host name that the kernel takes, in bytes.
const HOSTNAME_MAX: usize = 63;
/// Search domains that a resolver reads.
const SEARCHES_MAX: usize = 32;
/// Name servers that a resolver reads.
const SERVERS_MAX: usize = 3;

/// The pod's host name and, with a subdomain, its domain.
pub fn hostname(model: &Model, cluster_domain: &str) -> (String, String) {
    let spec = model.spec();
    if let Some(name) = &spec.hostname_override {
        return (truncate(name), String::new());
    }
    let own = spec.hostname.as_deref().filter(|name| !name.is_empty());
    let name = truncate(own.unwrap_or(model.pod.name()));
    let domain = match spec.subdomain.as_deref().filter(|name| !name.is_empty()) {
        Some(sub) => format!("{sub}.{}.svc.{cluster_domain}", model.pod.namespace()),
        None => String::new(),
    };
    (name, domain)
}

fn truncate(name: &str) -> String {
    let end = name.len().min(HOSTNAME_MAX);
    name.get(..end).unwrap_or(name).trim_end_matches(['-', '.']).to_owned()
}

/// What the kernel is told as host name.
pub fn kernel_hostname(model: &Model, cluster_domain: &str) -> String {
    let (name, domain) = hostname(model, cluster_domain);
    match model.spec().set_hostname_as_fqdn {
        Some(true) if !domain.is_empty() => format!("{name}.{domain}"),
        _ => name,
    }
}

/// The content of `/etc/hosts`; `host` is the node's own file, for pods on the host's network.
pub fn hosts(model: &Model, cluster_domain: &str, addresses: &[IpAddr], host: &str) -> String {
    let mut text = String::new();
    if model.host_network() {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(host);
    } else {
        text.push_str(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let (name, domain) = hostname(model, cluster_domain);
        for address in addresses {
            match domain.is_empty() {
                true => text.push_str(&format!("{address}\t{name}\n")),
                false => text.push_str(&format!("{address}\t{name}.{domain}\t{name}\n")),
            }
        }
    }
    if let Some(aliases) = model.spec().host_aliases.as_ref().filter(|list| !list.is_empty()) {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

/// Name servers, search domains and options of a resolver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    /// Reads a resolv.conf.
    pub fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let keyword = words.next().unwrap_or("");
            let words: Vec<String> = words.map(str::to_owned).collect();
            match keyword {
                "nameserver" => resolver.servers.extend(words.into_iter().take(1)),
                "search" => {
                    let bare = |word: String| match word.as_str() {
                        "." => word,
                        _ => word.trim_end_matches('.').to_owned(),
                    };
                    resolver.searches = words.into_iter().map(bare).collect();
                }
                "options" => resolver.options.extend(words),
                _ => {}
            }
        }
        resolver
    }

    fn add(&mut self, config: &core::PodDNSConfig) {
        self.servers.extend(config.nameservers.iter().flatten().cloned());
        self.searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or("");
            let is_same = |known: &String| known.split(':').next() == Some(name);
            let text = match option.value.as_deref().filter(|value| !value.is_empty()) {
                Some(value) => format!("{name}:{value}"),
                None => name.to_owned(),
            };
            match self.options.iter_mut().find(|known| is_same(known)) {
                Some(known) => *known = text,
                None => self.options.push(text),
            }
        }
    }

    fn text(mut self) -> String {
        unique(&mut self.servers);
        unique(&mut self.searches);
        self.servers.truncate(SERVERS_MAX);
        self.searches.truncate(SEARCHES_MAX);
        let mut text = String::new();
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

fn unique(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

/// The content of `/etc/resolv.conf`; `host` is the node's own file.
pub fn resolv_conf(
    model: &Model,
    cluster_dns: Option<IpAddr>,
    cluster_domain: &str,
    host: &str,
) -> String {
    let spec = model.spec();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let of_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !model.host_network(),
        _ => false,
    };
    let mut resolver = match policy {
        "None" => Resolver::default(),
        _ => Resolver::parse(host),
    };
    if let (true, Some(server)) = (of_cluster, cluster_dns) {
        resolver.servers = vec![server.to_string()];
        let namespace = model.pod.namespace();
        let mut searches = vec![
            format!("{namespace}.svc.{cluster_domain}"),
            format!("svc.{cluster_domain}"),
            cluster_domain.to_owned(),
        ];
        searches.append(&mut resolver.searches);
        resolver.searches = searches;
        resolver.options = vec!["ndots:5".to_owned()];
    }
    if let Some(config) = &spec.dns_config {
        resolver.add(config);
    }
    resolver.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::pods::tests::model;
    use serde_json::json;

    const HOST: &str = "# by dhcp\nnameserver 192.0.2.53\nsearch example.org.\noptions edns0\n";

    #[test]
    fn each_dns_policy_has_its_resolver() {
        let text =
            |spec| resolv_conf(&model(spec), "10.43.0.10".parse().ok(), "cluster.local", HOST);
        let cluster = "search default.svc.cluster.local svc.cluster.local cluster.local \
                       example.org\nnameserver 10.43.0.10\noptions ndots:5\n";
        assert_eq!(text(json!({"containers": []})), cluster);
        let host = "search example.org\nnameserver 192.0.2.53\noptions edns0\n";
        assert_eq!(text(json!({"containers": [], "hostNetwork": true})), host);
        let config = json!({"nameservers": ["192.0.2.1"], "searches": ["a.b"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        let own = "search a.b\nnameserver 192.0.2.1\noptions ndots:2 edns0\n";
        assert_eq!(text(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": config})), own);
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let model = model(json!({"containers": [], "hostname": "db-0", "subdomain": "db",
            "hostAliases": [{"ip": "192.0.2.9", "hostnames": ["x", "y"]}]}));
        let text = hosts(&model, "cluster.local", &["10.42.0.5".parse().unwrap()], "");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.42.0.5\tdb-0.db.default.svc.cluster.local\tdb-0\n"));
        assert!(text.ends_with("# Entries added by HostAliases.\n192.0.2.9\tx\ty\n"));
        assert_eq!(truncate(&format!("{}-b", "a".repeat(62))), "a".repeat(62));
    }
}
