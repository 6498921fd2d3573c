//! What a plug-in is, and what it may say.
//!
//! Why closed types: a refusal carries its reason, whether taking pods off the node could help, and
//! (through [`Plugin::wakes_on`]) which events may, so that the queue needs no knowledge of any
//! plug-in.

use super::cache::{NodeRow, NodeTable};
use super::pod::PodInfo;

/// The highest score of one plug-in for one node (upstream's `MaxNodeScore`).
pub const SCORE_MAX: i64 = 100;

/// Why a node cannot take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One text for each reason, in upstream's words, as in "Insufficient cpu".
    pub reasons: Vec<String>,
    /// No removal of pods from the node would help.
    pub unresolvable: bool,
}

impl Refusal {
    /// Refused for a reason that removing pods may mend.
    pub fn resolvable(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], unresolvable: false }
    }

    /// Refused for a reason that only a change of the node or of the pod can mend.
    pub fn unresolvable(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], unresolvable: true }
    }
}

/// What happened in the cluster that may make a waiting pod fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClusterEvent {
    /// A node came or changed.
    Node,
    /// A bound pod is gone, has ended or has shrunk.
    PodGone,
    /// A bound pod came or its labels changed.
    PodAdded,
}

/// A scheduling plug-in. It implements the points it needs.
pub trait Plugin: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// Keeps a pod out of the queue, with the reason (scheduling gates).
    fn pre_enqueue(&self, _pod: &PodInfo) -> Option<String> {
        None
    }

    /// Whether `node` can take `pod`.
    fn filter(&self, _pod: &PodInfo, _node: &NodeRow<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    /// The weight of this plug-in's score; 0 for plug-ins that do not score.
    fn weight(&self) -> i64 {
        0
    }

    /// Scores each feasible node (rows of `table`), from 0 to [`SCORE_MAX`].
    fn score(&self, _pod: &PodInfo, _table: &NodeTable, _rows: &[usize]) -> Vec<i64> {
        Vec::new()
    }

    /// Which events may end a refusal of this plug-in.
    fn wakes_on(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::Node]
    }
}

/// Stretches raw scores so that the highest becomes [`SCORE_MAX`] (upstream's
/// `DefaultNormalizeScore`); `reverse` gives the highest to the lowest.
pub fn normalize(mut scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        if max > 0 {
            *score = SCORE_MAX * *score / max;
        }
        if reverse {
            *score = SCORE_MAX - *score;
        }
    }
    scores
}
