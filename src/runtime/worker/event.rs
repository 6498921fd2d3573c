//! Everything that can happen to a pod, as one closed type.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use crate::object::Status;
use crate::runtime::engine::{Container, EngineEvent};
use crate::runtime::probes::ProbeKind;
use crate::runtime::status::Waiting;
use crate::runtime::volumes::Volumes;

/// Everything that can happen to a pod.
#[derive(Debug)]
pub enum Event {
    /// The API has a newer pod.
    Pod(Arc<core::Pod>),
    /// The API has the pod no more.
    Gone,
    /// All containers of the pod, as the engine lists them.
    Observed(Vec<Container>),
    /// The engine says that something happened to a container.
    Engine(EngineEvent),
    /// A ConfigMap or Secret that the pod names has changed.
    Sources,
    /// A probe's verdict changed.
    Probe {
        /// The container's id.
        id: String,
        /// Which probe.
        kind: ProbeKind,
        /// The verdict.
        good: bool,
    },
    /// A step has ended.
    Done(Done),
}

/// How a step ended.
#[derive(Debug)]
pub enum Done {
    /// Volumes, sandbox and network.
    Setup(Result<Ready, String>),
    /// A container's start.
    Start {
        /// Its name.
        name: String,
        /// The container, or why there is none.
        result: Result<Container, NotStarted>,
    },
    /// A container's end.
    Kill {
        /// Its name.
        name: String,
        /// As it is now.
        container: Option<Container>,
    },
    /// Sandbox, network and volumes are given back.
    TearDown(Result<(), String>),
    /// Volumes were refreshed.
    Refresh(Result<Option<Timestamp>, String>),
    /// A container's last words.
    Words {
        /// The container's id.
        id: String,
        /// What it said.
        text: String,
    },
    /// The status was written.
    Written(Result<Box<core::Pod>, Status>),
    /// The pod was deleted in the API.
    Deleted(Result<(), Status>),
    /// An operation ended without a result (a panic, or the node stops).
    Lost(String),
}

/// A pod that is ready to have containers.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The sandbox.
    pub sandbox: Container,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Its volumes.
    pub volumes: Volumes,
    /// When tokens in its volumes have to be renewed.
    pub renew: Option<Timestamp>,
}

/// Why a container did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotStarted {
    /// What the status shows.
    pub waiting: Waiting,
    /// When to try again; `None` when only a change helps.
    pub retry: Option<Timestamp>,
    /// What is left of it.
    pub container: Option<Box<Container>>,
}
