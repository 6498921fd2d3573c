//! clusterd: Kubernetes in one executable, at the weight of Swarm.
//!
//! # Bird's eye
//!
//! A stock control plane keeps each object in etcd, in the API server's cache and in each
//! controller's informer, and encodes it again at each border. clusterd keeps it once: the applied
//! Raft state *is* the watch cache and its bytes *are* the response. One table of types drives
//! everything that upstream generates code for. And every component decides purely (`plan` of a
//! snapshot gives changes) and acts in one place.
//!
//! # Layers
//!
//! Imports go downward only; `tests/it/tidy.rs` holds this, and who may use which outside crate.
//!
//! | layer | folder | what it is |
//! |---|---|---|
//! | L0 | [`stdx`] | clock, task supervisor, back-off, limits, ids: cluster-blind |
//! | L1 | [`object`] | objects as pure values: meta, selectors, Status, schema table, patches |
//! | L2 | [`store`] | revisioned key-value store on Raft and RocksDB: bytes and revisions only |
//! | L2 | [`client`] | the `Client` trait through which components meet; over HTTPS; a fake |
//! | L3 | [`api`] | the API server: chain, router, a handler a verb, a small strategy a kind |
//! | L4 | [`reconcile`] | informers, work queue, controller driver, change executor, events |
//! | L5 | [`controllers`] | one file or folder each and one line in a list |
//! | L5 | [`scheduler`] | queue, node table, pure cycle, plug-ins |
//! | L5 | [`runtime`] | the node: pod workers over a container engine (Docker) |
//! | L5 | [`net`] | the node's links and routes, Service rules in nftables, DNS |
//! | L6 | [`roles`] [`config`] | the command line and what runs where; `clusterd ctl` |
//!
//! Siblings of L5 never import each other: they meet in API objects, or in the few traits of
//! [`client::node`] and the shared facts of [`reconcile::predicates`].
//!
//! # One request, walked: `kubectl apply -f deployment.yaml`
//!
//! 1. [`api::server`] takes the TLS connection; [`api::chain`] runs in its printed order: id,
//!    identity, impersonation, seats, authorization; [`api::router`] finds verb and resource.
//! 2. [`api::handlers`] decodes the body against [`object::schema`], patches, defaults, admits
//!    ([`api::admission`]), lets the kind's [`api::kind::Strategy`] prepare and validate, and takes
//!    along what must be written with it (a Service's address).
//! 3. [`store`]: one transaction on the expected revision; a group of them shares one fsync; apply
//!    puts the revision into the bytes that reply, watchers and disk share.
//! 4. [`reconcile`]'s informer decodes them once; `controllers::deployment` plans a ReplicaSet,
//!    `controllers::replicas` plans pods; the executor writes through [`api::local`], which passes
//!    authorization and admission like everyone.
//! 5. [`scheduler`] decides on its node table and binds beside deciding.
//! 6. [`runtime`]'s worker plans the pod's next steps; [`net`] links it; status goes back.
//! 7. Endpoint slices follow; [`net`] changes set elements in one netlink transaction and swaps
//!    the DNS snapshot. A curl to the ClusterIP lands in a container.
//!
//! # Adding things
//!
//! - **A kind**: a strategy in `api/resources/<group>/` (often only data, see
//!   `apps/controllerrevision.rs`) and its row in `api/resources/list.rs`.
//! - **A controller**: a file in `controllers/` (see `node_taints.rs`) and its line in `all`.
//! - **A scheduler plug-in**: a file in `scheduler/plugins/` (see `node_name.rs`) and its line.
//! - **A ctl verb**: a file in `roles/ctl/` and its variant.
//!
//! # What never happens (a test holds each as far as it can)
//!
//! - An acknowledged write is lost, or a watch skips an event: it ends with 410 instead.
//! - A component holds truth in memory: kill any at any time, the next pass converges.
//! - Killing clusterd touches a running pod.
//! - A failed fsync is retried: the process ends, and start-up reads what is really there.
//! - A task runs unsupervised; a queue, body, loop or cache has no bound ([`stdx::limits`]).
//!
//! # Where this differs from the first design
//!
//! - Raft log and state are two RocksDB databases: in one, state writes queue behind log syncs.
//! - The dev profile compiles our code at opt-level 0: on two cores that is what a build costs.
//! - Bodies may nest 120 levels: what is stored must be readable by every JSON reader we use.
//! - Links and routes go through `rtnetlink`; nf_tables and conntrack messages through a small
//!   writer of our own in `net::netlink`, which knows the expressions that no crate has.

pub mod api;
pub mod client;
pub mod config;
pub mod controllers;
pub mod net;
pub mod object;
pub mod reconcile;
pub mod roles;
pub mod runtime;
pub mod scheduler;
pub mod stdx;
pub mod store;
