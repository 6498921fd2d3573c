//! The node table: what each node can hold and what it holds, assumed pods included.
//!
//! Why columns beside rows: resource checks walk three arrays of numbers; labels, taints and ports
//! are reached through the row only when a plug-in asks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::pod::PodInfo;
use crate::reconcile::predicates::{self, Amounts, HostPort};

/// CPU, memory and ephemeral storage lie in columns of their own.
const COLUMNS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// What lies beside the columns for one node.
#[derive(Debug, Default)]
struct Side {
    node: Option<Arc<Node>>,
    name: String,
    /// Extended resources and huge pages: allocatable and requested.
    scalars: Amounts,
    scalars_used: Amounts,
    ports: Vec<(String, HostPort)>,
    pods: HashMap<String, PodInfo>,
}

/// The table of nodes; a row is an index that stays with its node for the node's life.
#[derive(Debug, Default)]
pub struct NodeTable {
    rows: BTreeMap<String, usize>,
    free_rows: Vec<usize>,
    side: Vec<Side>,
    allocatable: [Vec<i64>; 3],
    requested: [Vec<i64>; 3],
    weighed: [Vec<i64>; 2],
    pods_max: Vec<i64>,
    /// Where each pod is counted, by uid.
    places: HashMap<String, usize>,
}

/// One node of the table.
#[derive(Clone, Copy)]
pub struct NodeRow<'a> {
    table: &'a NodeTable,
    /// The row's index.
    pub index: usize,
}

impl<'a> NodeRow<'a> {
    /// The node's name.
    pub fn name(&self) -> &'a str {
        &self.table.side[self.index].name
    }

    /// The node object.
    pub fn node(&self) -> Option<&'a Arc<Node>> {
        self.table.side[self.index].node.as_ref()
    }

    /// What the node can hold of a resource.
    pub fn allocatable(&self, resource: &str) -> i64 {
        match COLUMNS.iter().position(|name| *name == resource) {
            Some(column) => self.table.allocatable[column][self.index],
            None => self.table.side[self.index].scalars.get(resource).copied().unwrap_or(0),
        }
    }

    /// What its pods ask for of a resource.
    pub fn requested(&self, resource: &str) -> i64 {
        match COLUMNS.iter().position(|name| *name == resource) {
            Some(column) => self.table.requested[column][self.index],
            None => self.table.side[self.index].scalars_used.get(resource).copied().unwrap_or(0),
        }
    }

    /// (CPU millis, memory bytes) its pods count for in scoring.
    pub fn weighed(&self) -> (i64, i64) {
        (self.table.weighed[0][self.index], self.table.weighed[1][self.index])
    }

    /// How many pods it may hold.
    pub fn pods_max(&self) -> i64 {
        self.table.pods_max[self.index]
    }

    /// How many it holds.
    pub fn pod_count(&self) -> i64 {
        self.table.side[self.index].pods.len() as i64
    }

    /// The host ports in use.
    pub fn host_ports(&self) -> impl Iterator<Item = &'a HostPort> {
        self.table.side[self.index].ports.iter().map(|(_, port)| port)
    }
}

impl NodeTable {
    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.side.len() - self.free_rows.len()
    }

    /// No node at all?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of all known nodes, by name.
    pub fn rows(&self) -> impl Iterator<Item = NodeRow<'_>> {
        let known = self.rows.values().map(|index| NodeRow { table: self, index: *index });
        known.filter(|row| row.node().is_some())
    }

    /// The row at `index`.
    pub fn row(&self, index: usize) -> NodeRow<'_> {
        NodeRow { table: self, index }
    }

    fn row_of(&mut self, name: &str) -> usize {
        if let Some(row) = self.rows.get(name) {
            return *row;
        }
        let row = self.free_rows.pop().unwrap_or_else(|| {
            let numbers = self.allocatable.iter_mut().chain(&mut self.requested);
            numbers.chain(&mut self.weighed).for_each(|column| column.push(0));
            self.pods_max.push(0);
            self.side.push(Side::default());
            self.side.len() - 1
        });
        self.side[row].name = name.to_owned();
        self.rows.insert(name.to_owned(), row);
        row
    }

    /// A node came or changed.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let row = self.row_of(&name);
        let status = node.status.as_ref();
        let mut allocatable = predicates::amounts(status.and_then(|all| all.allocatable.as_ref()));
        for (column, resource) in COLUMNS.iter().enumerate() {
            self.allocatable[column][row] = allocatable.remove(*resource).unwrap_or(0);
        }
        self.pods_max[row] = allocatable.remove("pods").unwrap_or(0);
        let side = &mut self.side[row];
        side.scalars = allocatable;
        side.node = Some(node);
    }

    /// A node is gone; its pods stay counted until they go.
    pub fn remove_node(&mut self, name: &str) {
        let Some(row) = self.rows.get(name).copied() else { return };
        self.side[row].node = None;
        self.release_if_empty(row);
    }

    fn release_if_empty(&mut self, row: usize) {
        let side = &self.side[row];
        if side.node.is_none() && side.pods.is_empty() {
            self.rows.remove(&side.name);
            self.side[row] = Side::default();
            self.free_rows.push(row);
        }
    }

    /// Counts a pod on a node: bound, or assumed to be soon. Counting it again replaces it.
    pub fn add_pod(&mut self, info: PodInfo, node: &str) {
        self.remove_pod(&info.uid);
        let row = self.row_of(node);
        self.count(row, &info, 1);
        let side = &mut self.side[row];
        side.ports.extend(info.host_ports.iter().map(|port| (info.uid.clone(), port.clone())));
        self.places.insert(info.uid.clone(), row);
        side.pods.insert(info.uid.clone(), info);
    }

    /// A pod is gone, has ended, or was not bound after all. `false`: it was not counted.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(row) = self.places.remove(uid) else { return false };
        let Some(info) = self.side[row].pods.remove(uid) else { return false };
        self.count(row, &info, -1);
        self.side[row].ports.retain(|(owner, _)| owner != uid);
        self.release_if_empty(row);
        true
    }

    /// The node a pod is counted on.
    pub fn place_of(&self, uid: &str) -> Option<&str> {
        self.places.get(uid).map(|row| self.side[*row].name.as_str())
    }

    /// The counted object of a pod.
    pub fn counted(&self, uid: &str) -> Option<&Arc<Pod>> {
        let row = self.places.get(uid)?;
        self.side[*row].pods.get(uid).map(|info| &info.pod)
    }

    fn count(&mut self, row: usize, info: &PodInfo, sign: i64) {
        for (resource, more) in &info.requests {
            match COLUMNS.iter().position(|name| name == resource) {
                Some(column) => self.requested[column][row] += sign * more,
                None => {
                    let used = &mut self.side[row].scalars_used;
                    *used.entry(resource.clone()).or_insert(0) += sign * more;
                }
            }
        }
        self.weighed[0][row] += sign * info.weighed.0;
        self.weighed[1][row] += sign * info.weighed.1;
    }
}
