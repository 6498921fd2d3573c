//! Pod links: attach, talk, restart, detach, remove.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clusterd::client::node::{PodNetwork, PodRef};
use clusterd::net::cidr::Cidr;
use clusterd::net::podnet::links::Links;
use clusterd::net::podnet::{Network, host};
use clusterd::net::proxy::layout::Ranges;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::namespace::{Namespace, command};

/// A namespace as a host with a prepared pod network, and a runtime whose threads are in it.
pub struct Host {
    pub space: Namespace,
    pub runtime: Arc<Runtime>,
    pub network: Network,
    pub data: tempfile::TempDir,
    range: watch::Sender<Option<Cidr>>,
}

pub fn ranges() -> Ranges {
    Ranges { cluster: "10.42.0.0/16".parse().unwrap(), service: "10.43.0.0/16".parse().unwrap() }
}

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);

impl Host {
    pub fn new() -> Option<Self> {
        let space = Namespace::new()?;
        let data = tempfile::tempdir().unwrap();
        let pods: Cidr = "10.42.0.0/24".parse().unwrap();
        let (range, seen) = watch::channel(Some(pods));
        let directory = data.path().to_owned();
        let (runtime, network) = space.run(move || {
            command("ip link set lo up");
            let mut links = Links::open().unwrap();
            host::prepare(&mut links, &ranges(), DNS).unwrap();
            host::set_gateway(&mut links, ranges().service, GATEWAY).unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            (Arc::new(runtime), Network::open(&directory, &mut links, seen).unwrap())
        });
        Some(Self { space, runtime, network, data, range })
    }

    /// The network as a new process would open it.
    pub fn reopen(&mut self) {
        let (directory, seen) = (self.data.path().to_owned(), self.range.subscribe());
        self.network = self
            .space
            .run(move || Network::open(&directory, &mut Links::open().unwrap(), seen).unwrap());
    }

    pub fn attach(&self, uid: &str, netns: &Path) -> anyhow::Result<Ipv4Addr> {
        let (network, netns) = (self.network.clone(), netns.to_owned());
        let pod = PodRef { namespace: "default".into(), name: "web".into(), uid: uid.to_owned() };
        // The runtime's own threads are in the host's namespace, this one is not.
        let handle = self.runtime.spawn(async move { network.attach(&pod, &netns).await });
        match self.runtime.block_on(handle).unwrap()?.ips[..] {
            [IpAddr::V4(address)] => Ok(address),
            ref other => panic!("{other:?}"),
        }
    }

    pub fn pod(&self, uid: &str) -> (Namespace, Ipv4Addr) {
        let space = Namespace::new().unwrap();
        let address = self.attach(uid, &space.path).unwrap();
        (space, address)
    }
}

/// Serves `answer` to each connection, as long as the namespace lives.
pub fn serve(space: &Namespace, address: &str, answer: &'static str) {
    let listener = {
        let address = address.to_owned();
        space.run(move || TcpListener::bind(address).unwrap())
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let client = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "{answer} to {client}");
        }
    });
}

/// What a server answers to a connection from `space`.
pub fn ask(space: &Namespace, address: impl Into<String>) -> std::io::Result<String> {
    let address = address.into();
    space.run(move || {
        let address = address.parse().unwrap();
        let wait = std::time::Duration::from_secs(5);
        let mut stream = TcpStream::connect_timeout(&address, wait)?;
        stream.set_read_timeout(Some(wait))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

#[test]
fn pods_reach_each_other_and_the_host_and_keep_their_address() {
    let Some(mut host) = Host::new() else { return };
    let (first, one) = host.pod("uid-1");
    let (second, two) = host.pod("uid-2");
    assert_ne!(one, two);
    serve(&second, "0.0.0.0:80", "second");
    serve(&host.space, "0.0.0.0:81", "host");
    assert_eq!(ask(&first, format!("{two}:80")).unwrap(), format!("second to {one}"));
    assert_eq!(ask(&host.space, format!("{two}:80")).unwrap(), format!("second to {GATEWAY}"));
    assert_eq!(ask(&first, format!("{GATEWAY}:81")).unwrap(), format!("host to {one}"));

    host.reopen();
    assert_eq!(host.attach("uid-1", &first.path).unwrap(), one, "after a restart");
    assert_eq!(ask(&first, format!("{two}:80")).unwrap(), format!("second to {one}"));

    let anew = Namespace::new().unwrap();
    let other = host.attach("uid-1", &anew.path).unwrap();
    assert_eq!(ask(&anew, format!("{two}:80")).unwrap(), format!("second to {other}"));
    assert_eq!(host.runtime.block_on(host.network.list()).len(), 2);
}

#[test]
fn unknown_pods_and_other_ranges_are_unreachable_at_once() {
    let Some(host) = Host::new() else { return };
    let (pod, _) = host.pod("uid-1");
    for from in [&pod, &host.space] {
        let error = ask(from, "10.42.7.7:80").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable, "{error}");
    }
    let gone = host.attach("uid-2", &PathBuf::from("/proc/self/ns/absent"));
    assert!(gone.is_err());
    assert_eq!(host.runtime.block_on(host.network.list()), ["uid-1"], "no address is lost");
}

#[test]
fn an_attach_that_was_cut_short_is_repaired() {
    let Some(mut host) = Host::new() else { return };
    let (pod, address) = host.pod("uid-1");
    host.space.run(|| command("ip route del 10.42.0.2"));
    host.space.run(|| command("ip link set cld0a2a0002 down"));
    pod.run(|| command("ip route del default"));
    assert_eq!(host.attach("uid-1", &pod.path).unwrap(), address);
    let answer = ask(&host.space, format!("{address}:80")).unwrap_err();
    assert_eq!(answer.kind(), std::io::ErrorKind::ConnectionRefused, "the pod's own refusal");
    // The namespace goes while no process of ours runs: its address is free after a start.
    host.space.run(|| command("ip link del cld0a2a0002"));
    host.reopen();
    assert!(host.runtime.block_on(host.network.list()).is_empty());
}

#[test]
fn a_host_route_inside_our_ranges_is_refused_in_words() {
    let Some(space) = Namespace::new() else { return };
    let error = space.run(|| {
        command("ip link add other0 type veth peer name other1");
        command("ip addr add 10.42.9.1/24 dev other0");
        command("ip link set other0 up");
        host::prepare(&mut Links::open().unwrap(), &ranges(), DNS).unwrap_err().to_string()
    });
    assert!(error.contains("--cluster-cidr") && error.contains("other0"), "{error}");
}

#[test]
fn nothing_of_ours_is_left_after_removal() {
    let Some(space) = Namespace::new() else { return };
    let state = || command("ip -br addr") + &command("ip route show table all");
    let before = space.run(state);
    let (inventory, after) = space.run(move || {
        let mut links = Links::open().unwrap();
        host::prepare(&mut links, &ranges(), DNS).unwrap();
        host::set_gateway(&mut links, ranges().service, GATEWAY).unwrap();
        let inventory = host::inventory(&mut links).unwrap();
        host::remove(&mut links).unwrap();
        (inventory, state())
    });
    assert_eq!(inventory.len(), 4, "{inventory:?}");
    assert_eq!(before, after);
}
