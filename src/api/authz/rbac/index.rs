//! Roles and bindings compiled for questions: from a user and a namespace to rules.
//!
//! Why compiled: a request is asked about on every call, and roles change by the hour. The state
//! keeps each object's few facts; any change makes a new index, and readers swap to it without a
//! lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::rule::{Rule, rules_of};
use crate::api::authn::service_account;
use crate::api::objects::Change;
use crate::client::User;
use crate::object::{Value, meta};

/// The group of all RBAC objects.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// The four resources, as followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `clusterroles`.
    ClusterRoles,
    /// `roles`.
    Roles,
    /// `clusterrolebindings`.
    ClusterRoleBindings,
    /// `rolebindings`.
    RoleBindings,
}

impl Source {
    /// All four.
    pub const ALL: [Self; 4] =
        [Self::ClusterRoles, Self::Roles, Self::ClusterRoleBindings, Self::RoleBindings];

    /// The plural name.
    pub const fn resource(self) -> &'static str {
        match self {
            Self::ClusterRoles => "clusterroles",
            Self::Roles => "roles",
            Self::ClusterRoleBindings => "clusterrolebindings",
            Self::RoleBindings => "rolebindings",
        }
    }
}

/// Whom a binding means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// A binding's facts.
#[derive(Clone, Debug)]
struct Binding {
    /// Each subject with its part of the reason's text.
    subjects: Vec<(Subject, String)>,
    role_kind: String,
    role_name: String,
}

type Names = (String, String);

/// The four resources' facts, from which an [`Index`] is made.
#[derive(Default)]
pub struct State {
    roles: BTreeMap<Names, Arc<[Rule]>>,
    bindings: BTreeMap<Names, Binding>,
}

impl State {
    /// Takes in one change. Cluster-scoped objects have the namespace "".
    pub fn apply(&mut self, source: Source, change: Change) {
        let is_cluster = matches!(source, Source::ClusterRoles | Source::ClusterRoleBindings);
        let is_role = matches!(source, Source::ClusterRoles | Source::Roles);
        match change {
            Change::Reset(objects) => {
                let stays = |(namespace, _): &Names| namespace.is_empty() != is_cluster;
                if is_role {
                    self.roles.retain(|names, _| stays(names));
                } else {
                    self.bindings.retain(|names, _| stays(names));
                }
                for object in objects {
                    self.put(is_role, &object);
                }
            }
            Change::Put(object) => self.put(is_role, &object),
            Change::Gone { namespace, name } => {
                let names = (namespace, name);
                if is_role {
                    self.roles.remove(&names);
                } else {
                    self.bindings.remove(&names);
                }
            }
        }
    }

    fn put(&mut self, is_role: bool, object: &Value) {
        let names = (meta::namespace(object).to_owned(), meta::name(object).to_owned());
        if is_role {
            self.roles.insert(names, rules_of(object).into());
        } else {
            let binding = binding_of(object);
            self.bindings.insert(names, binding);
        }
    }

    /// The index of the present state.
    pub fn compile(&self) -> Index {
        let mut index = Index { roles: self.roles.clone(), grants: HashMap::new() };
        for ((namespace, name), binding) in &self.bindings {
            let role_namespace = if binding.role_kind == "Role" { namespace.as_str() } else { "" };
            let rules = self.rules(&binding.role_kind, role_namespace, &binding.role_name);
            let (kind, full) = if namespace.is_empty() {
                ("ClusterRoleBinding", name.clone())
            } else {
                ("RoleBinding", format!("{name}/{namespace}"))
            };
            let head =
                format!("{kind} {full:?} of {} {:?} to ", binding.role_kind, binding.role_name);
            for (subject, text) in &binding.subjects {
                let grant = Grant { reason: format!("{head}{text}"), rules: rules.clone() };
                let subjects = index.grants.entry(namespace.clone()).or_default();
                subjects.entry(subject.clone()).or_default().push(grant);
            }
        }
        index
    }

    fn rules(&self, kind: &str, namespace: &str, name: &str) -> Result<Arc<[Rule]>, String> {
        find_rules(&self.roles, kind, namespace, name)
    }
}

fn find_rules(
    roles: &BTreeMap<Names, Arc<[Rule]>>,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Arc<[Rule]>, String> {
    if kind != "Role" && kind != "ClusterRole" {
        return Err(format!("unsupported role reference kind: {kind:?}"));
    }
    roles
        .get(&(namespace.to_owned(), name.to_owned()))
        .cloned()
        .ok_or_else(|| format!("{}.{GROUP} {name:?} not found", kind.to_lowercase()))
}

fn binding_of(object: &Value) -> Binding {
    let namespace = meta::namespace(object);
    let list = meta::at(object, &["subjects"]).and_then(Value::as_array);
    let subject = |value: &Value| {
        let name = meta::text(value, &["name"]);
        let plain = |kind: &str| format!("{kind} {name:?}");
        match meta::text(value, &["kind"]) {
            "User" => Some((Subject::User(name.to_owned()), plain("User"))),
            "Group" => Some((Subject::Group(name.to_owned()), plain("Group"))),
            "ServiceAccount" => {
                let own = meta::text(value, &["namespace"]);
                let namespace = if own.is_empty() { namespace } else { own };
                let user = format!("{}{namespace}:{name}", service_account::USER_PREFIX);
                let text = format!("ServiceAccount {:?}", format!("{name}/{namespace}"));
                (!namespace.is_empty()).then_some((Subject::User(user), text))
            }
            _ => None,
        }
    };
    Binding {
        subjects: list.into_iter().flatten().filter_map(subject).collect(),
        role_kind: meta::text(object, &["roleRef", "kind"]).to_owned(),
        role_name: meta::text(object, &["roleRef", "name"]).to_owned(),
    }
}

/// What one binding gives to one subject.
pub struct Grant {
    /// As in `ClusterRoleBinding "x" of ClusterRole "y" to Group "z"`.
    pub reason: String,
    /// The role's rules, or why there are none.
    pub rules: Result<Arc<[Rule]>, String>,
}

/// Roles and bindings, ready to be asked.
#[derive(Default)]
pub struct Index {
    roles: BTreeMap<Names, Arc<[Rule]>>,
    /// By namespace ("" for cluster role bindings) and subject.
    grants: HashMap<String, HashMap<Subject, Vec<Grant>>>,
}

impl Index {
    /// The grants that a user has in a namespace ("" for cluster scope), cluster-wide ones first.
    pub fn grants<'a>(
        &'a self,
        user: &'a User,
        namespace: &str,
    ) -> impl Iterator<Item = &'a Grant> {
        let local = (!namespace.is_empty()).then(|| self.grants.get(namespace)).flatten();
        self.grants.get("").into_iter().chain(local).flat_map(move |subjects| {
            let groups = user.groups.iter().map(|group| Subject::Group(group.clone()));
            std::iter::once(Subject::User(user.name.clone()))
                .chain(groups)
                .filter_map(|subject| subjects.get(&subject))
                .flatten()
        })
    }

    /// The rules of a role that a binding in `namespace` refers to.
    pub fn role(&self, kind: &str, namespace: &str, name: &str) -> Result<Arc<[Rule]>, String> {
        let namespace = if kind == "Role" { namespace } else { "" };
        find_rules(&self.roles, kind, namespace, name)
    }
}
