//! clusterd: Kubernetes in one executable, at the weight of Swarm.
//!
//! # Bird's eye
//!
//! A stock control plane keeps each object in etcd, in the API server's cache and in each
//! controller's informer, and encodes it again at each border. clusterd keeps it once: the applied
//! Raft state *is* the watch cache, its bytes *are* the response, and scheduler and controllers read
//! the same memory. One table of types drives everything that upstream generates code for. And
//! every component decides purely (`plan(&Snapshot) -> Vec<Change>`) and acts in one place.
//!
//! # Layers (imports go downward only; `tests/it/tidy.rs` holds this)
//!
//! | layer | folder | what it is |
//! |---|---|---|
//! | L0 | [`stdx`] | clock, task supervisor, back-off, limits, ids: cluster-blind |
//! | L1 | [`object`] | Kubernetes objects as pure values: meta, selectors, quantities, Status, schema, patches |
//! | L2 | [`store`] | replicated, revisioned key-value store with watches: bytes and revisions only |
//! | L2 | [`client`] | the `Client` trait through which components meet, and a client over HTTP |
//! | L3 | [`api`] | the API server: chain, router, handlers, one small strategy a kind |
//! | L4 | [`reconcile`] | informers, work queue, controller driver, change executor |
//! | L5 | [`controllers`] [`scheduler`] [`runtime`] [`net`] [`observe`] | the components; none imports another |
//! | L6 | [`roles`] | the command line and what runs where |

pub mod api;
pub mod client;
pub mod config;
pub mod controllers;
pub mod net;
pub mod object;
pub mod observe;
pub mod reconcile;
pub mod roles;
pub mod runtime;
pub mod scheduler;
pub mod stdx;
pub mod store;
