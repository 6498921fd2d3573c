//! The master: store, API server, scheduler, controllers and a node of its own, in one process.
//!
//! Why in this order: what may fail for a reason a person can mend (the port, the directory, keys)
//! fails before anything is started, and `/readyz` says yes only when the default objects exist.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::components;
use super::streams::Nodes;
use crate::api::authn::Authentication;
use crate::api::authz::rbac::aggregation;
use crate::api::authz::{Authorization, Authorizer};
use crate::api::data::Data;
use crate::api::local::LocalClient;
use crate::api::objects::{SharedObjects, StoreObjects};
use crate::api::server::{Api, Check, Listener, Parts};
use crate::api::{admission, bootstrap, pki, resources, reviews, server};
use crate::client::{SharedClient, User};
use crate::config::Server;
use crate::controllers::{Kinds, ServedKind};
use crate::stdx::clock::{SharedClock, SystemClock};
use crate::stdx::ids;
use crate::stdx::tasks::Tasks;
use crate::store::{self, Store};

/// Runs until a signal or a fatal failure; a second signal forces.
pub async fn run(options: Server) -> anyhow::Result<i32> {
    let began = std::time::Instant::now();
    let tasks = Tasks::new();
    let clock = SystemClock::shared();
    // The store stops last: components that are still draining write through it.
    let storage = Tasks::new();
    let started = start(&options, &tasks, &storage, &clock).await;
    let api = match started {
        Ok(api) => api,
        Err(error) => {
            tasks.shutdown().await;
            storage.shutdown().await;
            // A failure under the surface says more than what it led to.
            let deeper = storage.failure().or_else(|| tasks.failure());
            return Err(deeper.map_or(error, anyhow::Error::msg));
        }
    };
    announce(&options, began);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = wait(&tasks) => {}
        () = wait(&storage) => {}
    }
    api.begin_shutdown();
    notify_init("STOPPING=1");
    tokio::select! {
        () = async { tasks.shutdown().await; storage.shutdown().await } => {}
        _ = terminate.recv() => tracing::warn!("second signal: forced"),
        _ = interrupt.recv() => tracing::warn!("second signal: forced"),
    }
    match storage.failure().or_else(|| tasks.failure()) {
        Some(reason) => anyhow::bail!(reason),
        None => Ok(0),
    }
}

async fn wait(tasks: &Tasks) {
    tasks.stop_token().cancelled().await;
}

async fn start(
    options: &Server,
    tasks: &Tasks,
    storage: &Tasks,
    clock: &SharedClock,
) -> anyhow::Result<Arc<Api>> {
    let address = SocketAddr::new(options.bind_address, options.https_port);
    let socket = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop what uses the port, or choose --https-port")
    })?;
    make_dir(&options.data_dir)?;
    let cluster_id = cluster_id(&options.data_dir)?;
    let config = store::Config { cluster_id, ..store::Config::new(options.data_dir.join("store")) };
    let store = Store::open(config, storage).await.map_err(|error| {
        let advice = advice(&error);
        anyhow::anyhow!("cannot open the store in {}: {error}{advice}", options.data_dir.display())
    })?;
    // Behind the store's lock: another process must not have its certificates renewed under it.
    let pki = Arc::new(open_pki(options, clock)?);
    let nodes = Arc::new(Nodes::default());
    let objects: SharedObjects = Arc::new(StoreObjects::new(store.clone()));
    let api = build_api(options, store, &objects, &pki, &nodes, clock, tasks)?;
    pki.spawn_renewal(tasks);
    let admin = LocalClient::new(api.clone(), bootstrap::apiserver_user(), "kube-apiserver");
    let admin: SharedClient = Arc::new(admin);
    let bootstrap_options = bootstrap::Options {
        service_cidr: options.service_cidr.to_string(),
        ca_pem: pki.ca().pem().to_owned(),
        front_proxy_ca_pem: pki.front_proxy_ca().pem().to_owned(),
    };
    bootstrap::run(&*admin, &bootstrap_options)
        .await
        .context("cannot write the cluster's default objects")?;
    let tls = pki::server_config(pki.serving(), &[pki.ca(), pki.front_proxy_ca()], ALPN)?;
    server::serve(&api, Listener { socket, tls: Arc::new(tls) });
    let url = format!("https://{}:{}", reachable(options), options.https_port);
    pki::write_kubeconfig(&options.write_kubeconfig, &pki.admin_kubeconfig(&url)?)
        .with_context(|| format!("cannot write {}", options.write_kubeconfig.display()))?;
    let aggregator = "system:serviceaccount:kube-system:clusterrole-aggregation-controller";
    aggregation::spawn(tasks, objects, client_for(&api)(aggregator));
    let around = components::Around {
        options: options.clone(),
        admin,
        client_for: client_for(&api),
        clock: clock.clone(),
        nodes,
        ca_pem: pki.ca().pem().to_owned(),
        kinds: served_kinds(&api),
    };
    components::start(&around, tasks).await?;
    Ok(api)
}

/// What a person can do about a store that does not open.
fn advice(error: &store::Error) -> &'static str {
    match error {
        store::Error::Locked(_) => "; stop that process, or choose another --data-dir",
        store::Error::Foreign { .. } => {
            "; put back the cluster-id file that belongs to it, or choose another --data-dir"
        }
        _ => "",
    }
}

const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The URL under which others reach this server.
fn advertised(options: &Server) -> String {
    let ip = options.advertise_address.unwrap_or_else(|| options.node_ip());
    format!("https://{}", SocketAddr::new(ip, options.https_port))
}

/// The address in the administrator's kubeconfig: loopback works whatever the network does.
fn reachable(options: &Server) -> String {
    if options.bind_address.is_unspecified() || options.bind_address.is_loopback() {
        "127.0.0.1".to_owned()
    } else {
        options.bind_address.to_string()
    }
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot create --data-dir {}", dir.display()))
}

/// The cluster's id, minted at the first start. The store keeps its own copy and refuses another.
fn cluster_id(dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("cluster-id");
    match std::fs::read_to_string(&path) {
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {path:?}")),
    }
    let id = ids::uid();
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, &id)
        .and_then(|()| std::fs::File::open(&fresh)?.sync_all())
        .and_then(|()| std::fs::rename(&fresh, &path))
        .with_context(|| format!("cannot write {path:?}"))?;
    Ok(id)
}

fn open_pki(options: &Server, clock: &SharedClock) -> anyhow::Result<pki::Pki> {
    let node_ip = options.node_ip();
    let mut addresses = vec![node_ip];
    addresses.extend(options.advertise_address.filter(|ip| *ip != node_ip));
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let options = pki::Options {
        dir: options.data_dir.join("pki"),
        hostname,
        node_name: options.node_name()?,
        addresses,
        service_ip: options.service_ip().into(),
        domain: options.cluster_domain.clone(),
        sans: options.tls_san.clone(),
    };
    Ok(pki::Pki::open(options, clock.clone())?)
}

fn build_api(
    options: &Server,
    store: Store,
    objects: &SharedObjects,
    pki: &pki::Pki,
    nodes: &Arc<Nodes>,
    clock: &SharedClock,
    tasks: &Tasks,
) -> anyhow::Result<Arc<Api>> {
    let node_rules = bootstrap::rules_of_default("system:node").map_err(anyhow::Error::msg)?;
    let authentication =
        Authentication::new(pki, &options.cluster_domain, objects.clone(), clock.clone());
    let authentication = Arc::new(authentication.map_err(anyhow::Error::msg)?);
    let authorization = Arc::new(Authorization::start(objects, node_rules, tasks));
    let authorizer: Arc<dyn Authorizer> = authorization.clone();
    let plugins = admission::plugins(objects, &authorizer, &authorization.rbac());
    Ok(Api::new(Parts {
        data: Data::new(store.clone()),
        kinds: resources::all(),
        virtuals: resources::VIRTUAL.to_vec(),
        create_only: reviews::create_only(&authentication, &authorization),
        post_only: reviews::post_only(&authentication, plugins.clone()),
        authenticator: authentication.clone(),
        authorizers: vec![authorizer],
        admission: plugins,
        documents: reviews::documents(&authentication, &advertised(options)),
        nodes: Some(nodes.clone()),
        checks: vec![Arc::new(StoreCheck(store))],
        metrics: Vec::new(),
        clock: clock.clone(),
        tasks: tasks.clone(),
    }))
}

/// The store can be written: it has a leader.
struct StoreCheck(Store);

#[async_trait]
impl Check for StoreCheck {
    fn name(&self) -> &'static str {
        "store"
    }

    async fn check(&self) -> Result<(), String> {
        let read = self.0.linearizable_view(store::Keyspace::Kubernetes).await;
        read.map(drop).map_err(|error| error.to_string())
    }
}

fn client_for(api: &Arc<Api>) -> components::ClientFor {
    let api = api.clone();
    Arc::new(move |name: &str| {
        let mut user = bootstrap::apiserver_user();
        if name != user.name {
            user = User { name: name.to_owned(), ..User::default() };
        }
        let account = name.strip_prefix("system:serviceaccount:");
        if let Some((namespace, account)) = account.and_then(|rest| rest.split_once(':')) {
            user = crate::api::authn::service_account::user(namespace, account, "");
        } else if name.starts_with("system:node:") {
            user.groups.push("system:nodes".to_owned());
        }
        let agent = name.rsplit(':').next().unwrap_or(name).to_owned();
        Arc::new(LocalClient::new(api.clone(), user, agent)) as SharedClient
    })
}

/// Each stored resource once, in the version that comes first in discovery.
fn served_kinds(api: &Arc<Api>) -> Kinds {
    let api = api.clone();
    Arc::new(move || {
        let registry = api.registry.load();
        let mut seen = std::collections::HashSet::new();
        let mut kinds = Vec::new();
        for kind in registry.all().filter(|kind| seen.insert(kind.storage.clone())) {
            let can = |verb: &str| kind.verbs.iter().any(|one| one == verb);
            kinds.push(ServedKind {
                gvr: kind.gvr(),
                kind: kind.gvk.kind.clone(),
                namespaced: kind.namespaced,
                deletable: can("list") && can("watch") && can("delete"),
            });
        }
        kinds
    })
}

fn announce(options: &Server, began: std::time::Instant) {
    let took = began.elapsed();
    let path = options.write_kubeconfig.display();
    tracing::info!("ready after {took:?}; administrator's kubeconfig: {path}");
    eprintln!("clusterd is ready. Try:\n  export KUBECONFIG={path}\n  clusterd ctl get nodes");
    notify_init("READY=1");
}

/// Tells systemd, when it started us (`sd_notify`: one datagram to the socket it names).
fn notify_init(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let text = path.to_string_lossy();
    let address = match text.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&*text),
    };
    let sent = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!("cannot notify the init system: {error}");
    }
}
