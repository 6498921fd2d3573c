//! Services by ClusterIP, node port and from the host, over real TCP and UDP.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use clusterd::net::netlink::Result;
use clusterd::net::nft::TABLE;
use clusterd::net::podnet::docker_user;
use clusterd::net::proxy::plan::{NodeInfo, ServiceState};
use clusterd::net::proxy::{Proxy, kernel};
use clusterd::reconcile::ObjectKey;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::namespace::{Namespace, command};
use super::podnet::{DNS, GATEWAY, Host, ask, ranges, serve};

const SERVICE: &str = "10.43.1.1";

/// A host with a proxy.
struct Node {
    host: Host,
    proxy: Arc<Mutex<Proxy>>,
}

impl Node {
    fn new() -> Option<Self> {
        let host = Host::new()?;
        let proxy = Self::open(&host);
        Some(Self { host, proxy })
    }

    fn open(host: &Host) -> Arc<Mutex<Proxy>> {
        let node = NodeInfo { name: "here".into(), dns: DNS };
        Arc::new(Mutex::new(host.space.run(move || Proxy::open(ranges(), node).unwrap())))
    }

    fn set(&self, spec: Value, endpoints: &[Ipv4Addr]) {
        self.sync(vec![(ObjectKey::new("default", "web"), Some(state(spec, endpoints)))]).unwrap();
    }

    fn sync(&self, changed: Vec<(ObjectKey, Option<ServiceState>)>) -> Result<()> {
        let proxy = self.proxy.clone();
        self.host.space.run(move || proxy.lock().sync(changed))
    }

    fn rules(&self) -> String {
        self.host.space.run(|| command("nft list ruleset"))
    }
}

fn state(spec: Value, endpoints: &[Ipv4Addr]) -> ServiceState {
    let mut body = json!({"clusterIP": SERVICE, "ports": [
        {"name": "http", "port": 80, "nodePort": 30080},
        {"name": "dns", "port": 53, "nodePort": 30053, "protocol": "UDP"}]});
    body.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let service = serde_json::from_value(json!({"spec": body})).unwrap();
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|ip| {
            let local = ip.octets()[..2] == [10, 42];
            json!({"addresses": [ip], "nodeName": if local { "here" } else { "elsewhere" }})
        })
        .collect();
    let slice = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": [
        {"name": "http", "port": 8080, "protocol": "TCP"},
        {"name": "dns", "port": 5353, "protocol": "UDP"}]});
    let slices = vec![Arc::new(serde_json::from_value(slice).unwrap())];
    ServiceState { service: Arc::new(service), slices }
}

fn refused(answer: std::io::Result<String>) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
}

#[test]
fn a_cluster_ip_answers_pods_and_the_host_and_spreads() {
    let Some(node) = Node::new() else { return };
    let (first, one) = node.host.pod("one");
    let (second, two) = node.host.pod("two");
    let (client, address) = node.host.pod("client");
    serve(&first, "0.0.0.0:8080", "one");
    serve(&second, "0.0.0.0:8080", "two");
    let service = format!("{SERVICE}:80");
    refused(ask(&client, &service));
    refused(ask(&node.host.space, &service));
    node.set(json!({}), &[one, two]);
    let answers: Vec<_> = (0..40).map(|_| ask(&client, &service).unwrap()).collect();
    for name in ["one", "two"] {
        assert!(answers.contains(&format!("{name} to {address}")), "{}", node.rules());
    }
    assert!(ask(&node.host.space, &service).unwrap().ends_with(&format!("to {GATEWAY}")));
    // A pod that gets itself sees the gateway, never its own address (the answer would be lost).
    let own: Vec<_> = (0..40).map(|_| ask(&first, &service).unwrap()).collect();
    assert!(own.contains(&format!("one to {GATEWAY}")) && own.contains(&format!("two to {one}")));
    node.set(json!({}), &[two]);
    assert!((0..10).all(|_| ask(&client, &service).unwrap().starts_with("two")));
    node.set(json!({}), &[]);
    refused(ask(&client, &service));
    refused(ask(&client, "10.43.200.200:80"));
    refused(ask(&node.host.space, "10.43.200.200:80"));
}

#[test]
fn a_node_port_answers_on_every_address_and_from_outside() {
    let Some(node) = Node::new() else { return };
    let (pod, one) = node.host.pod("one");
    let (client, address) = node.host.pod("client");
    serve(&pod, "0.0.0.0:8080", "one");
    let outside = Namespace::new().unwrap();
    link(&node.host.space, &outside);
    serve(&outside, "0.0.0.0:8080", "outside");
    node.set(json!({"type": "NodePort"}), &[one]);
    assert_eq!(ask(&client, "192.168.7.1:30080").unwrap(), format!("one to {address}"));
    assert_eq!(ask(&outside, "192.168.7.1:30080").unwrap(), "one to 192.168.7.2");
    assert_eq!(ask(&node.host.space, "192.168.7.1:30080").unwrap(), "one to 192.168.7.1");
    let local = ask(&node.host.space, "127.0.0.1:30080");
    assert_eq!(local.unwrap(), format!("one to {GATEWAY}"), "{}", node.rules());
    // An endpoint beyond this node: the answer must come back through it.
    node.set(json!({"type": "NodePort"}), &[Ipv4Addr::new(192, 168, 7, 2)]);
    assert_eq!(ask(&outside, "192.168.7.1:30080").unwrap(), "outside to 192.168.7.1");
    assert_eq!(ask(&client, format!("{SERVICE}:80")).unwrap(), "outside to 192.168.7.1");
    node.set(json!({"type": "NodePort"}), &[]);
    refused(ask(&outside, "192.168.7.1:30080"));
    refused(ask(&node.host.space, "127.0.0.1:30080"));
}

/// A cable from the host (192.168.7.1) to a namespace outside the cluster (192.168.7.2).
fn link(host: &Namespace, outside: &Namespace) {
    let target = outside.path.clone();
    let id = target.iter().nth(4).unwrap().to_str().unwrap().to_owned();
    host.run(move || {
        command(&format!("ip link add up0 type veth peer name up1 netns {id}"));
        command("ip addr add 192.168.7.1/24 dev up0");
        command("ip link set up0 up");
    });
    outside.run(|| {
        command("ip addr add 192.168.7.2/24 dev up1");
        command("ip link set up1 up");
    });
}

#[test]
fn a_client_keeps_its_endpoint_until_that_is_gone() {
    let Some(node) = Node::new() else { return };
    let pods: Vec<_> = ["a", "b", "c", "d"].iter().map(|uid| node.host.pod(uid)).collect();
    for ((pod, _), name) in pods.iter().zip(["a", "b", "c", "d"]) {
        serve(pod, "0.0.0.0:8080", name);
    }
    let (client, _) = node.host.pod("client");
    let addresses: Vec<Ipv4Addr> = pods.iter().map(|(_, address)| *address).collect();
    let sticky = json!({"sessionAffinity": "ClientIP"});
    node.set(sticky.clone(), &addresses);
    let service = format!("{SERVICE}:80");
    let first = ask(&client, &service).unwrap();
    for _ in 0..20 {
        assert_eq!(ask(&client, &service).unwrap(), first);
    }
    let left: Vec<Ipv4Addr> = addresses
        .iter()
        .zip(["a", "b", "c", "d"])
        .filter(|(_, name)| !first.starts_with(name))
        .map(|(address, _)| *address)
        .collect();
    node.set(sticky, &left);
    let second = ask(&client, &service).unwrap();
    assert_ne!(second, first);
    for _ in 0..20 {
        assert_eq!(ask(&client, &service).unwrap(), second, "{}", node.rules());
    }
}

#[test]
fn a_udp_client_that_keeps_its_port_follows_a_change() {
    let Some(node) = Node::new() else { return };
    let (first, one) = node.host.pod("one");
    let (second, two) = node.host.pod("two");
    let (client, _) = node.host.pod("client");
    for (pod, answer) in [(&first, "one"), (&second, "two")] {
        let socket = pod.run(|| UdpSocket::bind("0.0.0.0:5353").unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(answer.as_bytes(), from);
            }
        });
    }
    let socket = client.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((SERVICE, 53)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    });
    let exchange = || {
        let mut buffer = [0; 16];
        socket.send(b"?")?;
        socket
            .recv(&mut buffer)
            .map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    assert_eq!(exchange().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    node.set(json!({}), &[one]);
    assert_eq!(exchange().unwrap(), "one");
    node.set(json!({}), &[two]);
    assert_eq!(exchange().unwrap(), "two");
    node.set(json!({}), &[]);
    assert_eq!(exchange().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn rules_outlive_the_process_and_are_mended() {
    let Some(mut node) = Node::new() else { return };
    let (pod, one) = node.host.pod("one");
    let (client, _) = node.host.pod("client");
    serve(&pod, "0.0.0.0:8080", "one");
    node.set(json!({}), &[one]);
    node.proxy = Node::open(&node.host);
    let service = format!("{SERVICE}:80");
    assert!(ask(&client, &service).is_ok(), "before the first sync of the new process");
    let before = node.rules();
    node.set(json!({}), &[one]);
    assert_eq!(node.rules(), before, "nothing had to change");
    // Another process that starts where this Service is gone clears it away.
    node.proxy = Node::open(&node.host);
    node.sync(Vec::new()).unwrap();
    refused(ask(&client, &service));
    // Somebody flushes everything.
    node.set(json!({}), &[one]);
    node.host.space.run(|| command("nft flush ruleset"));
    node.proxy.lock().distrust();
    node.sync(Vec::new()).unwrap();
    assert_eq!(ask(&client, &service).unwrap().split(' ').next(), Some("one"));
    assert!(node.host.space.run(|| kernel::remove().unwrap()));
    assert!(!node.rules().contains(TABLE));
}

#[test]
fn thousands_of_services_fit_one_transaction() {
    let Some(node) = Node::new() else { return };
    let services = |endpoint: Ipv4Addr| {
        (0..5_000_u16).map(move |n| {
            let [high, low] = n.to_be_bytes();
            let spec = json!({"clusterIP": Ipv4Addr::new(10, 43, 100 + high, low)});
            (ObjectKey::new("default", n.to_string()), Some(state(spec, &[endpoint, GATEWAY])))
        })
    };
    node.sync(services([10, 42, 0, 9].into()).collect()).unwrap();
    let host = &node.host.space;
    let count =
        || host.run(|| command("nft list map ip clusterd endpoints").matches(" : 10.").count());
    assert_eq!(count(), 20_000);
    node.sync(services([10, 42, 0, 8].into()).collect()).unwrap();
    assert_eq!(count(), 20_000);
    let one = services([10, 42, 0, 7].into()).take(1).collect();
    let began = std::time::Instant::now();
    node.sync(one).unwrap();
    println!("one change among 5,000 services, flows looked through: {:?}", began.elapsed());
    node.sync(services([10, 42, 0, 8].into()).map(|(key, _)| (key, None)).collect()).unwrap();
    assert_eq!(count(), 0);
}

#[test]
fn dockers_drop_policy_does_not_reach_pods() {
    for program in ["iptables-nft", "iptables-legacy"] {
        let Some(node) = Node::new() else { return };
        let (_server, one) = node.host.pod("one");
        let (client, _) = node.host.pod("client");
        let host = &node.host.space;
        host.run(move || {
            for line in [
                "-P FORWARD DROP",
                "-N DOCKER-USER",
                "-A DOCKER-USER -j RETURN",
                "-A FORWARD -j DOCKER-USER",
            ] {
                command(&format!("{program} {line}"));
            }
        });
        assert!(host.run(docker_user::ensure).unwrap(), "{program}");
        assert!(!host.run(docker_user::ensure).unwrap(), "a second time changes nothing");
        refused(ask(&client, format!("{one}:8080")));
        let listed = host.run(move || command(&format!("{program} -S DOCKER-USER")));
        assert!(listed.contains("-i cld+") && listed.contains("-o cld+"), "{listed}");
        assert_eq!(host.run(docker_user::count).unwrap(), 2);
        host.run(docker_user::remove).unwrap();
        assert_eq!(host.run(docker_user::count).unwrap(), 0);
        let listed = host.run(move || command(&format!("{program} -S DOCKER-USER")));
        assert!(!listed.contains("cld"), "{listed}");
    }
}
