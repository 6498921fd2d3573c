//! Answers of the whole server, read by another implementation (hickory), over real sockets.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::answer::Transport;
use super::forward::Forwarder;
use super::records::{plan, tests::service};
use super::server::{Server, start};
use super::zone::{Zone, ZoneConfig};
use crate::reconcile::ObjectKey;
use crate::stdx::clock::SystemClock;
use crate::stdx::tasks::Tasks;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);

fn zone() -> Zone {
    let config = ZoneConfig {
        domain: "cluster.local".into(),
        address: OWN,
        ranges: vec!["10.42.0.0/16".parse().unwrap(), "10.43.0.0/16".parse().unwrap()],
    };
    let mut zone = Zone::new(&config).unwrap();
    let endpoints: Vec<_> =
        (2..62).map(|n| json!({"addresses": [format!("10.42.0.{n}")]})).collect();
    let named = |name: &str, state| (ObjectKey::new("default", name), state);
    let ports = json!([{"name": "http", "port": 80}]);
    let cluster_ip = json!({"clusterIP": "10.43.1.1", "ports": ports});
    let alias = |to: &str| json!({"type": "ExternalName", "externalName": to});
    for (key, mut state) in [
        named("web", service(cluster_ip, json!([]))),
        named("many", service(json!({"clusterIP": "None"}), json!(endpoints))),
        named("inside", service(alias("web.default.svc.cluster.local"), json!([]))),
        named("outside", service(alias("alias.example.org"), json!([]))),
        named("loop", service(alias("loop.default.svc.cluster.local"), json!([]))),
    ] {
        Arc::make_mut(&mut state.service).metadata.name = Some(key.name.clone());
        zone.set(key, plan(&state, "cluster.local"));
    }
    zone
}

fn server(resolv: PathBuf) -> Arc<Server> {
    let mut zone = zone();
    zone.complete();
    let snapshot = ArcSwap::from_pointee(zone.snapshot());
    let forwarder = Forwarder::new(resolv, OWN.into(), SystemClock::shared());
    Arc::new(Server { snapshot, forwarder })
}

fn query(name: &str, kind: RecordType, size: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries.push(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(size) = size {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        message.edns = Some(edns);
    }
    message.to_vec().unwrap()
}

async fn ask(name: &str, kind: RecordType) -> Message {
    let server = server(PathBuf::from("/nowhere"));
    let response = server.respond(&query(name, kind, Some(1232)), Transport::Udp).await.unwrap();
    Message::from_vec(&response).unwrap()
}

/// Owner and data of each answer.
fn words(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| format!("{} {}", record.name, record.data)).collect()
}

#[tokio::test]
async fn services_answer_by_address_port_and_reverse_name() {
    let web = "web.default.svc.cluster.local.";
    let message = ask("WEB.default.svc.Cluster.local.", RecordType::A).await;
    assert!(message.metadata.authoritative && message.metadata.recursion_available);
    assert_eq!(words(&message), ["WEB.default.svc.Cluster.local. 10.43.1.1"]);
    let message = ask(&format!("_http._tcp.{web}"), RecordType::SRV).await;
    assert_eq!(words(&message), [format!("_http._tcp.{web} 0 100 80 {web}")]);
    assert_eq!(message.additionals[0].data, RData::A(Ipv4Addr::new(10, 43, 1, 1).into()));
    let message = ask("1.1.43.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(words(&message), [format!("1.1.43.10.in-addr.arpa. {web}")]);
    let message = ask("10-42-0-7.default.pod.cluster.local.", RecordType::A).await;
    assert_eq!(words(&message), ["10-42-0-7.default.pod.cluster.local. 10.42.0.7"]);
    let message = ask("dns-version.cluster.local.", RecordType::TXT).await;
    assert_eq!(words(&message), ["dns-version.cluster.local. 1.1.0"]);
}

#[tokio::test]
async fn no_such_name_is_told_from_no_such_record() {
    for (name, kind, code) in [
        ("none.default.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
        ("web.default.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError),
        ("default.svc.cluster.local.", RecordType::A, ResponseCode::NoError),
        ("example.org.default.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
        ("7.0.43.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain),
    ] {
        let message = ask(name, kind).await;
        assert_eq!(message.metadata.response_code, code, "{name}");
        assert!(message.answers.is_empty(), "{name}");
        let soa = &message.authorities[0];
        assert_eq!(soa.record_type(), RecordType::SOA);
        assert!(soa.name.zone_of(&Name::from_str(name).unwrap()), "{} {name}", soa.name);
    }
    let soa = ask("cluster.local.", RecordType::SOA).await;
    assert_eq!(soa.answers.len(), 1);
}

#[tokio::test]
async fn aliases_are_followed_inside_and_a_loop_ends() {
    let message = ask("inside.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(
        words(&message),
        [
            "inside.default.svc.cluster.local. web.default.svc.cluster.local.",
            "web.default.svc.cluster.local. 10.43.1.1"
        ]
    );
    let message = ask("loop.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    let message = ask("outside.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail, "no name server");
    let message = ask("outside.default.svc.cluster.local.", RecordType::CNAME).await;
    assert_eq!(message.answers.len(), 1);
}

#[tokio::test]
async fn before_the_first_sync_nothing_of_ours_is_denied() {
    let server = server(PathBuf::from("/nowhere"));
    let mut young = Arc::unwrap_or_clone(server.snapshot.load_full());
    young.complete = false;
    server.snapshot.store(Arc::new(young));
    for name in ["none.default.svc.cluster.local.", "9.0.43.10.in-addr.arpa."] {
        let request = query(name, RecordType::A, None);
        let response = server.respond(&request, Transport::Udp).await.unwrap();
        let code = Message::from_vec(&response).unwrap().metadata.response_code;
        assert_eq!(code, ResponseCode::ServFail);
    }
}

#[tokio::test]
async fn strange_requests_get_their_code_and_never_a_panic() {
    let server = server(PathBuf::from("/nowhere"));
    let good = query("web.default.svc.cluster.local.", RecordType::A, Some(1232));
    let code = async |bytes: Vec<u8>| {
        let response = server.respond(&bytes, Transport::Udp).await?;
        Some(Message::from_vec(&response).unwrap().metadata.response_code)
    };
    for end in 0..good.len() {
        code(good[..end].to_vec()).await;
    }
    let mut status = good.clone();
    status[2] = 0x10;
    assert_eq!(code(status).await, Some(ResponseCode::NotImp));
    let mut chaos = good.clone();
    let class = good.len() - 11 - 1;
    chaos[class] = 3;
    assert_eq!(code(chaos).await, Some(ResponseCode::Refused));
    let mut version = good.clone();
    let at = good.len() - 11 + 6;
    version[at] = 1;
    assert_eq!(code(version).await.map(u16::from), Some(16), "BADVERS");
    assert_eq!(code(vec![0x80; 40]).await, None);
}

#[tokio::test]
async fn a_long_answer_is_cut_by_datagram_and_whole_by_stream() {
    let tasks = Tasks::new();
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let bound = start(server(PathBuf::from("/nowhere")), address, &tasks).unwrap();
    let many = "many.default.svc.cluster.local.";
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = vec![0; 4096];
    let mut sizes = Vec::new();
    for size in [None, Some(1232)] {
        socket.send_to(&query(many, RecordType::A, size), bound).await.unwrap();
        let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
        let message = Message::from_vec(&buffer[..length]).unwrap();
        sizes.push((length, message.metadata.truncation, message.answers.len()));
    }
    assert!(sizes[0].0 <= 512 && sizes[0].1 && sizes[0].2 > 20, "{sizes:?}");
    assert!(sizes[1].0 <= 1232 && !sizes[1].1 && sizes[1].2 == 60, "{sizes:?}");
    let mut stream = TcpStream::connect(bound).await.unwrap();
    for _ in 0..2 {
        let request = query(many, RecordType::A, None);
        stream.write_u16(request.len() as u16).await.unwrap();
        stream.write_all(&request).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut response = vec![0; usize::from(length)];
        stream.read_exact(&mut response).await.unwrap();
        assert_eq!(Message::from_vec(&response).unwrap().answers.len(), 60);
    }
    tasks.shutdown().await;
}

/// A name server that knows one alias and counts what it is asked.
async fn outside(tasks: &Tasks) -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    tasks.spawn_once("a name server", async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut message = Message::from_vec(&buffer[..length]).unwrap();
            message.metadata.message_type = MessageType::Response;
            let own = message.queries[0].name().clone();
            let real = Name::from_str("real.example.org.").unwrap();
            let alias = RData::CNAME(hickory_proto::rr::rdata::CNAME(real.clone()));
            let address = RData::A(Ipv4Addr::new(192, 0, 2, 7).into());
            message.answers = vec![
                hickory_proto::rr::Record::from_rdata(own, 60, alias),
                hickory_proto::rr::Record::from_rdata(real, 60, address),
            ];
            socket.send_to(&message.to_vec().unwrap(), client).await.unwrap();
        }
    });
    (address, asked)
}

#[tokio::test]
async fn the_outside_is_asked_once_and_its_aliases_are_joined_to_ours() {
    let tasks = Tasks::new();
    let (address, asked) = outside(&tasks).await;
    let resolv = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(resolv.path(), format!("nameserver {address}\n")).unwrap();
    let server = server(resolv.path().to_owned());
    for _ in 0..3 {
        let request = query("Alias.example.org.", RecordType::A, None);
        let response = server.respond(&request, Transport::Udp).await.unwrap();
        let message = Message::from_vec(&response).unwrap();
        assert_eq!(message.metadata.id, 4711);
        assert_eq!(message.answers.len(), 2);
        assert!(!message.metadata.authoritative);
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    let request = query("outside.default.svc.cluster.local.", RecordType::A, Some(1232));
    let response = server.respond(&request, Transport::Udp).await.unwrap();
    assert_eq!(
        words(&Message::from_vec(&response).unwrap()),
        [
            "outside.default.svc.cluster.local. alias.example.org.",
            "alias.example.org. real.example.org.",
            "real.example.org. 192.0.2.7"
        ]
    );
    tasks.stop_token().cancel();
}
