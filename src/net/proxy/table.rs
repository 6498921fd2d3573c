//! All Services' elements joined, and the difference between two moments.
//!
//! Why owners are kept for each element: several Services may want the same one (an endpoint that
//! both select), or, wrongly, different ones at one place (the same external address). The first
//! owner in order wins, and when it goes the next one's wish takes effect, without a full pass.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::layout::{Pick, Set};
use super::plan::{Elements, Place, Value};
use crate::net::nft::{Data, Transaction};
use crate::reconcile::ObjectKey;

/// What should be in the kernel.
#[derive(Debug, Default)]
pub struct Table {
    by_service: HashMap<Arc<ObjectKey>, Elements>,
    owners: BTreeMap<Place, BTreeMap<Arc<ObjectKey>, Value>>,
    /// How many elements lead to each chain.
    picks: BTreeMap<Pick, usize>,
}

/// Elements before and after; only those that differ.
pub type Delta = BTreeMap<Place, (Option<Value>, Option<Value>)>;

impl Table {
    /// Replaces what one Service wants and notes in `delta` what that changes.
    pub fn set(&mut self, service: ObjectKey, wanted: Elements, delta: &mut Delta) {
        let service = Arc::new(service);
        let old = self.by_service.remove(&service).unwrap_or_default();
        for place in old.keys().filter(|place| !wanted.contains_key(place)) {
            self.change(place, &service, None, delta);
        }
        for (place, value) in &wanted {
            if old.get(place) != Some(value) {
                self.change(place, &service, Some(value.clone()), delta);
            }
        }
        if !wanted.is_empty() {
            self.by_service.insert(service, wanted);
        }
    }

    fn change(
        &mut self,
        place: &Place,
        service: &Arc<ObjectKey>,
        value: Option<Value>,
        delta: &mut Delta,
    ) {
        let owners = self.owners.entry(place.clone()).or_default();
        let before = owners.values().next().cloned();
        match value {
            Some(value) => owners.insert(service.clone(), value),
            None => owners.remove(service),
        };
        let after = owners.values().next().cloned();
        if owners.is_empty() {
            self.owners.remove(place);
        }
        if before == after {
            return;
        }
        if let Some(Value::Pick(pick)) = after {
            *self.picks.entry(pick).or_default() += 1;
        }
        if let Some(Value::Pick(pick)) = before
            && let Some(count) = self.picks.get_mut(&pick)
        {
            *count -= 1;
            if *count == 0 {
                self.picks.remove(&pick);
            }
        }
        let noted = delta.entry(place.clone()).or_insert((before, None));
        noted.1 = after;
        if noted.0 == noted.1 {
            delta.remove(place);
        }
    }

    /// The difference from what the kernel has.
    pub fn difference(&self, kernel: &Elements) -> Delta {
        let mut delta = Delta::new();
        for (place, owners) in &self.owners {
            let (before, after) = (kernel.get(place), owners.values().next());
            if before != after {
                delta.insert(place.clone(), (before.cloned(), after.cloned()));
            }
        }
        for (place, value) in kernel {
            if !self.owners.contains_key(place) {
                delta.insert(place.clone(), (Some(value.clone()), None));
            }
        }
        delta
    }

    /// The value at a place.
    pub fn get(&self, place: &Place) -> Option<&Value> {
        self.owners.get(place)?.values().next()
    }

    /// The chains that its elements lead to.
    pub fn picks(&self) -> BTreeSet<Pick> {
        self.picks.keys().copied().collect()
    }
}

/// Writes the changed elements: what went or changed is deleted, then what is new is added.
pub fn write(transaction: &mut Transaction, delta: &Delta) {
    for set in Set::ALL {
        let part = || delta.iter().filter(move |((other, _), _)| *other == set);
        let gone: Vec<_> = part()
            .filter(|(_, (before, _))| before.is_some())
            .map(|((_, key), _)| (key.clone(), Data::None))
            .collect();
        transaction.delete_elements(set.name(), &gone);
        let new: Vec<_> = part()
            .filter_map(|((_, key), (_, after))| Some((key.clone(), after.as_ref()?.data())))
            .collect();
        transaction.add_elements(set.name(), &new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("default", name)
    }

    fn at(byte: u8, value: Value) -> Elements {
        Elements::from([((Set::Refused, vec![byte]), value)])
    }

    fn pick(slots: u32) -> Value {
        Value::Pick(Pick { slots, node_port: false, sticky: None })
    }

    #[test]
    fn what_two_services_share_stays_until_both_are_gone() {
        let mut table = Table::default();
        let mut delta = Delta::new();
        table.set(key("a"), at(1, Value::Member), &mut delta);
        table.set(key("b"), at(1, Value::Member), &mut delta);
        assert_eq!(delta.len(), 1);
        let mut delta = Delta::new();
        table.set(key("a"), Elements::new(), &mut delta);
        assert!(delta.is_empty());
        table.set(key("b"), Elements::new(), &mut delta);
        assert_eq!(delta[&(Set::Refused, vec![1])], (Some(Value::Member), None));
    }

    #[test]
    fn the_next_owner_follows_when_the_first_goes() {
        let (mut table, mut delta) = (Table::default(), Delta::new());
        table.set(key("b"), at(1, pick(2)), &mut delta);
        table.set(key("a"), at(1, pick(1)), &mut delta);
        assert_eq!(table.get(&(Set::Refused, vec![1])), Some(&pick(1)));
        let mut delta = Delta::new();
        table.set(key("a"), Elements::new(), &mut delta);
        assert_eq!(delta[&(Set::Refused, vec![1])], (Some(pick(1)), Some(pick(2))));
        assert_eq!(table.picks().len(), 1);
        table.set(key("b"), Elements::new(), &mut delta);
        assert!(table.picks().is_empty() && delta[&(Set::Refused, vec![1])].1.is_none());
    }

    #[test]
    fn there_and_back_is_no_change() {
        let (mut table, mut delta) = (Table::default(), Delta::new());
        table.set(key("a"), at(1, pick(1)), &mut delta);
        let mut delta = Delta::new();
        table.set(key("a"), at(1, pick(2)), &mut delta);
        table.set(key("a"), at(1, pick(1)), &mut delta);
        assert!(delta.is_empty());
        let kernel = at(2, Value::Member);
        assert_eq!(table.difference(&kernel).len(), 2);
    }
}
