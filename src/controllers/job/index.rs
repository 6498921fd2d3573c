//! Sets of completion indexes as ordered intervals: "0,2-5,7".
//!
//! Why intervals: a Job may have a hundred thousand indexes, and its status carries this text.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;

use crate::reconcile::Object;

/// The annotation and label with a pod's index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// The index of a pod, if it has one.
pub fn index_of(pod: &Pod) -> Option<i32> {
    pod.annotation(INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// A set of indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes {
    /// First and last of each interval; ordered, apart by at least one.
    intervals: Vec<(i32, i32)>,
}

impl Indexes {
    /// Reads a text; indexes from `completions` on and what can't be read are left out.
    pub fn parse(text: &str, completions: i32) -> Self {
        let mut all = Self::default();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>())
                && first < completions
            {
                all.insert_interval(first, last.min(completions - 1));
            }
        }
        all
    }

    /// Adds one index.
    pub fn insert(&mut self, index: i32) {
        self.insert_interval(index, index);
    }

    fn insert_interval(&mut self, mut first: i32, mut last: i32) {
        let start = self.intervals.partition_point(|it| it.1 < first.saturating_sub(1));
        let mut end = start;
        while let Some(next) = self.intervals.get(end).filter(|it| it.0 <= last.saturating_add(1)) {
            first = first.min(next.0);
            last = last.max(next.1);
            end += 1;
        }
        self.intervals.splice(start..end, [(first, last)]);
    }

    /// Adds all of another set.
    pub fn merge(&mut self, other: &Self) {
        for (first, last) in &other.intervals {
            self.insert_interval(*first, *last);
        }
    }

    /// Whether an index is in it.
    pub fn has(&self, index: i32) -> bool {
        let at = self.intervals.partition_point(|it| it.1 < index);
        self.intervals.get(at).is_some_and(|it| it.0 <= index)
    }

    /// How many there are.
    pub fn len(&self) -> i32 {
        self.intervals.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many are in both.
    pub fn common(&self, other: &Self) -> i32 {
        let mut common = 0;
        for (first, last) in &self.intervals {
            let start = other.intervals.partition_point(|it| it.1 < *first);
            for (from, to) in other.intervals[start..].iter().take_while(|it| it.0 <= *last) {
                common += last.min(to) - first.max(from) + 1;
            }
        }
        common
    }

    /// The first `count` indexes below `completions` that are not in it.
    pub fn first_missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut missing = Vec::with_capacity(count);
        let mut candidate = 0;
        for (first, last) in self.intervals.iter().copied().chain([(completions, completions)]) {
            while candidate < first.min(completions) && missing.len() < count {
                missing.push(candidate);
                candidate += 1;
            }
            candidate = candidate.max(last.saturating_add(1));
        }
        missing
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.intervals.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match last - first {
                0 => write!(out, "{comma}{first}")?,
                1 => write!(out, "{comma}{first},{last}")?,
                _ => write!(out, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_grow_together() {
        let mut set = Indexes::default();
        for index in [7, 3, 5, 4, 0, 3] {
            set.insert(index);
        }
        assert_eq!(set.to_string(), "0,3-5,7");
        set.insert(6);
        set.insert(1);
        assert_eq!(set.to_string(), "0,1,3-7");
        assert_eq!(set.len(), 7);
        assert!(set.has(4) && !set.has(2) && !set.has(8));
        assert_eq!(Indexes::parse("0,1,3-7,oops,9-12", 11).to_string(), "0,1,3-7,9,10");
        assert_eq!(set.first_missing(3, 20), [2, 8, 9]);
        assert_eq!(set.first_missing(9, 9), [2, 8]);
        assert_eq!(set.common(&Indexes::parse("1-4,7-9", 20)), 4);
        assert_eq!(Indexes::parse("", 5), Indexes::default());
    }
}
