//! Ports of the nodes: one key a port, whoever asks first has it.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use rand::Rng;

use super::spec::{Port, Spec};
use super::{Owner, PORTS_PREFIX, freed, taken};
use crate::api::storage::{Companion, Lookup};
use crate::object::status::{FieldError, Result};
use crate::object::{Status, Value};

/// The first and last port that a Service may have on the nodes.
const RANGE: (i64, i64) = (30_000, 32_767);
/// Ports from here on go to those who ask for none by name (upstream's static band is a
/// thirty-second of the range).
const DYNAMIC: i64 = RANGE.0 + 86;

fn key(port: i64) -> Bytes {
    Bytes::from(format!("{PORTS_PREFIX}{port}"))
}

/// Who has a port, as it is stored.
fn holder(owner: &Owner) -> Value {
    Value::from(format!("{}/{}", owner.namespace, owner.name))
}

/// The ports that one write takes.
struct Claims<'a> {
    view: &'a dyn Lookup,
    held: Vec<i64>,
    taken: BTreeSet<i64>,
}

impl Claims<'_> {
    fn is_free(&self, port: i64) -> bool {
        !self.taken.contains(&port)
            && !self.held.contains(&port)
            && self.view.get(&key(port)).is_none()
    }

    fn named(&mut self, port: i64) -> std::result::Result<(), String> {
        if !(RANGE.0..=RANGE.1).contains(&port) {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                RANGE.0, RANGE.1
            ));
        }
        if !self.is_free(port) {
            return Err("provided port is already allocated".to_owned());
        }
        self.taken.insert(port);
        Ok(())
    }

    fn next(&mut self) -> std::result::Result<i64, String> {
        for (from, to) in [(DYNAMIC, RANGE.1), (RANGE.0, DYNAMIC - 1)] {
            let start = rand::rng().random_range(from..=to);
            let found = (start..=to).chain(from..start).find(|port| self.is_free(*port));
            if let Some(port) = found {
                self.taken.insert(port);
                return Ok(port);
            }
        }
        Err("range is full".to_owned())
    }
}

/// Fills in node ports, and gives the keys to take and to free.
pub(super) fn allocate(
    owner: &Owner,
    new: &mut Spec,
    old: Option<&Spec>,
    view: &dyn Lookup,
    changes: &mut Vec<Companion>,
) -> Result<()> {
    let held = old.map(Spec::node_ports).unwrap_or_default();
    let mut claims = Claims { view, held: held.clone(), taken: BTreeSet::new() };
    let every_port = new.needs_node_ports();
    if new.is_on_nodes() {
        let ports = &mut new.ports;
        match old {
            None => fill_new(owner, ports, every_port, &mut claims)?,
            Some(_) => fill_changed(owner, ports, every_port, &mut claims)?,
        }
    }
    let had_health_port = old.is_some_and(Spec::needs_health_port);
    if new.needs_health_port() && !had_health_port {
        let number = new.health_port;
        let result = match number {
            0 => claims.next().map_err(|why| {
                format!("failed to allocate a HealthCheck NodePort {number}: {why}")
            }),
            _ => claims.named(number).map(|()| number).map_err(|why| {
                format!("failed to allocate requested HealthCheck NodePort {number}: {why}")
            }),
        };
        new.health_port = result.map_err(Status::internal)?;
    }
    changes.extend(claims.taken.iter().map(|port| taken(key(*port), holder(owner))));
    let kept = if new.is_on_nodes() { new.node_ports() } else { Vec::new() };
    let gone: Vec<i64> = held.into_iter().filter(|port| !kept.contains(port)).collect();
    release(owner, &gone, view, changes);
    Ok(())
}

fn wrong(owner: &Owner, at: usize, port: i64, why: String) -> Status {
    let error = FieldError::invalid(format!("spec.ports[{at}].nodePort"), port, why);
    Status::invalid("", "Service", &owner.name, &[error])
}

fn full(why: String) -> Status {
    Status::internal(format!("failed to allocate a nodePort: {why}"))
}

/// Ports of a new Service: one number serves all protocols of the same port.
fn fill_new(
    owner: &Owner,
    ports: &mut [Port],
    every_port: bool,
    claims: &mut Claims<'_>,
) -> Result<()> {
    let mut by_port: HashMap<i64, i64> = HashMap::new();
    for at in 0..ports.len() {
        let (port, asked) = (ports[at].port, ports[at].node_port);
        if asked == 0 && !every_port {
            continue;
        }
        match by_port.get(&port) {
            None => {
                let of_same = |other: &&Port| other.port == port && other.node_port != 0;
                let number = match ports.iter().find(of_same).map(|other| other.node_port) {
                    Some(number) => {
                        claims.named(number).map_err(|why| wrong(owner, at, number, why))?;
                        number
                    }
                    None => claims.next().map_err(full)?,
                };
                ports[at].node_port = number;
                by_port.insert(port, number);
            }
            Some(number) if asked == 0 => ports[at].node_port = *number,
            Some(number) if *number != asked => {
                claims.named(asked).map_err(|why| wrong(owner, at, asked, why))?;
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Ports of a changed Service: what it held it keeps, each new one is taken.
fn fill_changed(
    owner: &Owner,
    ports: &mut [Port],
    every_port: bool,
    claims: &mut Claims<'_>,
) -> Result<()> {
    for at in 0..ports.len() {
        let asked = ports[at].node_port;
        if asked == 0 && !every_port {
            continue;
        }
        if asked == 0 {
            ports[at].node_port = claims.next().map_err(full)?;
        } else if !claims.held.contains(&asked) && !claims.taken.contains(&asked) {
            claims.named(asked).map_err(|why| wrong(owner, at, asked, why))?;
        }
        let (number, protocol) = (ports[at].node_port, ports[at].protocol.clone());
        let same = |other: &Port| other.node_port == number && other.protocol == protocol;
        if ports[..at].iter().any(same) {
            return Err(Status::internal(format!("duplicate nodePort: {{{protocol} {number}}}")));
        }
    }
    Ok(())
}

/// Frees the ports that are still kept for the Service.
pub(super) fn release(
    owner: &Owner,
    ports: &[i64],
    view: &dyn Lookup,
    changes: &mut Vec<Companion>,
) {
    for port in ports {
        let Some((bytes, revision)) = view.get(&key(*port)) else { continue };
        if serde_json::from_slice::<Value>(&bytes).ok() == Some(holder(owner)) {
            changes.push(freed(key(*port), revision));
        }
    }
}
