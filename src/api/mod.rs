//! The API server.
//!
//! One request passes one visible chain ([`chain`]): identity, authorization, then a route table,
//! then a generic handler for its verb. Kinds bring no plumbing: the schema table decodes, defaults
//! and patches; a kind adds a [`kind::Strategy`] (its own defaults, immutability, validation, table
//! columns) in `resources/<group>/<kind>.rs` and one line in the list of its group.
//!
//! Why one write path: create, update, four patches and apply all end in the same steps (decode,
//! default, mutate, validate, one transaction on the expected revision, the applied bytes back), so
//! that a rule holds for all of them or for none.
//!
//! | file | what it does |
//! |---|---|
//! | [`server`] | the parts of a server, TLS and HTTP connections, health and version (by warp) |
//! | [`chain`] | what every request passes, in order |
//! | [`router`], [`query`], [`negotiate`] | path, query and media types into typed wishes |
//! | [`handlers`] | one file a verb; `write` is the one write path |
//! | [`registry`], [`resources`], [`kind`] | which kinds are served, and what each brings |
//! | [`virtuals`], [`hooks`] | kinds that are computed and never stored |
//! | [`subresources`] | binding, eviction, logs, exec, proxies |
//! | [`data`], [`storage`], [`objects`] | the store as objects: keys, commits, read-only windows |
//! | [`table`], [`discovery`], [`openapi`] | what clients print, find and explain |
//! | [`authn`], [`authz`], [`admission`], [`pki`], [`bootstrap`] | who, may they, shall it be |
//! | [`local`] | `Client` without HTTP, by the same steps |

pub mod admission;
pub mod allocate;
pub mod authn;
pub mod authz;
pub mod body;
pub mod bootstrap;
pub mod chain;
pub mod context;
pub mod data;
pub mod discovery;
pub mod handlers;
pub mod hooks;
pub mod kind;
pub mod local;
pub mod metadata;
pub mod negotiate;
pub mod objects;
pub mod openapi;
pub mod pki;
pub mod query;
pub mod registry;
pub mod resources;
pub mod reviews;
pub mod router;
pub mod server;
pub mod storage;
pub mod subresources;
pub mod table;
pub mod virtuals;
