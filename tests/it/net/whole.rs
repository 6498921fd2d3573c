//! The network as the node runs it: it follows an API server and needs nobody's hand.

use std::net::Ipv4Addr;
use std::sync::Arc;

use clusterd::client::fake::FakeServer;
use clusterd::client::node::PodRef;
use clusterd::client::{SharedClient, Target, WriteOptions};
use clusterd::net::{Config, Network, inventory, uninstall};
use clusterd::object::{Gvr, Value};
use clusterd::reconcile::Informers;
use clusterd::stdx::clock::SystemClock;
use clusterd::stdx::tasks::Tasks;
use serde_json::json;

use super::namespace::{Namespace, command};
use super::podnet::{ask, serve};

async fn create(client: &SharedClient, gvr: Gvr, namespace: &str, body: Value) {
    let target = Target::all(&gvr, namespace);
    client.create(&target, body, &WriteOptions::default()).await.unwrap();
}

fn config(directory: &std::path::Path) -> Config {
    Config {
        node_name: "here".into(),
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
        service_cidr: "10.43.0.0/16".parse().unwrap(),
        cluster_dns: [10, 43, 0, 10].into(),
        cluster_domain: "cluster.local".into(),
        directory: directory.to_owned(),
        resolv_conf: "/nowhere".into(),
    }
}

#[test]
fn a_service_answers_by_address_and_name_and_survives_a_flush() {
    let Some(space) = Namespace::new() else { return };
    let pod = Namespace::new().unwrap();
    let client = Namespace::new().unwrap();
    let data = tempfile::tempdir().unwrap();
    let (directory, paths) = (data.path().to_owned(), [pod.path.clone(), client.path.clone()]);
    let runtime = space.run(|| {
        command("ip link set lo up");
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Arc::new(builder.worker_threads(2).enable_all().build().unwrap())
    });
    let tasks = Tasks::new();
    let inside = runtime.spawn({
        let tasks = tasks.clone();
        async move {
            let server = FakeServer::new(SystemClock::shared());
            let api = server.client();
            let node = json!({"metadata": {"name": "here"}, "spec": {"podCIDR": "10.42.0.0/24"}});
            create(&api, Gvr::new("", "v1", "nodes"), "", node).await;
            let informers = Informers::new(api.clone(), &tasks);
            let clock = SystemClock::shared();
            let network = Network::build(config(&directory), &informers, &tasks, clock).await;
            let network = network.unwrap();
            let mut addresses = Vec::new();
            for (path, uid) in paths.iter().zip(["pod", "client"]) {
                let pod = PodRef { uid: uid.into(), ..PodRef::default() };
                addresses.push(network.pods().attach(&pod, path).await.unwrap().ips[0]);
            }
            let meta = json!({"name": "web", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "web"}});
            let service = json!({"metadata": meta, "spec": {"clusterIP": "10.43.1.1",
                "ports": [{"port": 80}]}});
            let slice = json!({"metadata": meta, "addressType": "IPv4",
                "ports": [{"port": 8080, "name": ""}],
                "endpoints": [{"addresses": [addresses[0]]}]});
            create(&api, Gvr::new("", "v1", "services"), "default", service).await;
            let slices = Gvr::new("discovery.k8s.io", "v1", "endpointslices");
            create(&api, slices, "default", slice).await;
            network.ready().await;
            (network, addresses[1])
        }
    });
    let (network, address) = runtime.block_on(inside).unwrap();
    serve(&pod, "0.0.0.0:8080", "web");
    let service = "10.43.1.1:80";
    let eventually = || {
        // The informer's next event may be on its way; how long that takes is nobody's promise.
        let tries = (0..1_000).map(|_| ask(&client, service));
        tries.filter_map(Result::ok).next().expect("the service answers")
    };
    assert_eq!(eventually(), format!("web to {address}"));
    let found = client.run(|| lookup([10, 43, 0, 10].into(), b"\x03web\x07default\x03svc"));
    assert!(found.ends_with(&[10, 43, 1, 1]), "{found:?}");
    space.run(|| command("nft flush ruleset"));
    assert_eq!(eventually(), format!("web to {address}"), "the rules come back by themselves");
    assert!(!space.run(|| inventory().unwrap()).is_empty());
    runtime.block_on(async { tasks.shutdown().await });
    assert_eq!(ask(&client, service).unwrap(), format!("web to {address}"), "without a process");
    drop(network);
    space.run(|| uninstall().unwrap());
    assert_eq!(space.run(|| inventory().unwrap()), Vec::<String>::new());
}

/// Asks for the address of a name below cluster.local.
fn lookup(server: Ipv4Addr, labels: &[u8]) -> Vec<u8> {
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(labels);
    query.extend_from_slice(b"\x07cluster\x05local\0\0\x01\0\x01");
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    socket.send_to(&query, (server, 53)).unwrap();
    let mut buffer = vec![0; 512];
    let length = socket.recv(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}
