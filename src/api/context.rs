//! What is known of a request once its path and identity are read: the input of authorization,
//! admission and audit.

use std::net::IpAddr;
use std::sync::Arc;

use crate::client::User;
use crate::object::Gvr;

/// What somebody wants to do (upstream's `authorizer.Attributes`).
#[derive(Clone, Debug)]
pub struct Attributes {
    /// Who asks (after impersonation).
    pub user: Arc<User>,
    /// get, list, watch, create, update, patch, delete, deletecollection, or the HTTP method in
    /// lower case for paths that are no resource.
    pub verb: String,
    /// The resource; `None` for other paths.
    pub gvr: Option<Gvr>,
    /// "" or the subresource.
    pub subresource: String,
    /// "" for cluster scope.
    pub namespace: String,
    /// "" for collections and creates.
    pub name: String,
    /// The path of the URL.
    pub path: String,
    /// The field selector of a list, watch or deletecollection, as given.
    pub field_selector: String,
    /// The label selector, as given.
    pub label_selector: String,
}

/// What an API handler knows of its request besides [`Attributes`].
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// A random id, also the audit id.
    pub id: String,
    /// The caller's address; `None` for components of this process.
    pub source: Option<IpAddr>,
    /// The `User-Agent`, from which a missing field manager's name is taken.
    pub user_agent: String,
}
