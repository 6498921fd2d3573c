//! `Client` without HTTP: the same steps as a request from the network, for a component of this
//! process, as a given user.
//!
//! Why through authorization and admission too: a controller must be able to move out of the
//! process without becoming weaker or stronger.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::chain::authorize::authorize;
use super::context::{Attributes, RequestContext};
use super::data;
use super::handlers::{create, delete, deletecollection, get, list, patch, scale, update, watch};
use super::kind::Subresource;
use super::server::{Api, Call};
use super::{chain::identity, subresources, virtuals};
use crate::client::{
    Client, DeleteOptions, List, ListOptions, PatchKind, Target, User, Watch, WriteOptions,
};
use crate::object::Value;
use crate::object::schema::{self, decode};
use crate::object::status::{Result, Status};
use crate::stdx::ids;

/// A client in the server's own process.
#[derive(Clone)]
pub struct LocalClient {
    api: Arc<Api>,
    user: Arc<User>,
    agent: String,
}

impl LocalClient {
    /// Acts as `user`; `agent` names the component, also in managedFields.
    pub fn new(api: Arc<Api>, mut user: User, agent: impl Into<String>) -> Self {
        identity::add_group(&mut user, identity::AUTHENTICATED);
        Self { api, user: Arc::new(user), agent: agent.into() }
    }

    fn attributes(&self, target: &Target, verb: &str) -> Attributes {
        let namespace = target.namespace.clone().unwrap_or_default();
        let own = target.gvr.resource == "namespaces" && target.gvr.group.is_empty();
        Attributes {
            user: self.user.clone(),
            verb: verb.to_owned(),
            gvr: Some(target.gvr.clone()),
            subresource: target.subresource.clone(),
            namespace: if own { target.name.clone() } else { namespace },
            name: target.name.clone(),
            path: String::new(),
            field_selector: String::new(),
            label_selector: String::new(),
        }
    }

    fn request(&self) -> RequestContext {
        RequestContext { id: ids::uid(), source: None, user_agent: self.agent.clone() }
    }

    async fn call(
        &self,
        target: &Target,
        verb: &str,
        options: Option<&ListOptions>,
    ) -> Result<Call> {
        let mut attributes = self.attributes(target, verb);
        if let Some(options) = options {
            attributes.field_selector.clone_from(&options.field_selector);
            attributes.label_selector.clone_from(&options.label_selector);
        }
        authorize(&self.api, &attributes).await?;
        let kind = self.api.registry.load().resource(&target.gvr).cloned();
        let kind = kind.ok_or_else(Status::no_such_path)?;
        let name = attributes.subresource.as_str();
        if !name.is_empty() && kind.subresource(name).is_none() {
            return Err(Status::no_such_path());
        }
        let request = self.request();
        Ok(Call { api: self.api.clone(), kind, attributes, request, warnings: Mutex::default() })
    }

    fn is_scale(call: &Call) -> bool {
        let found = call.kind.subresource(&call.attributes.subresource);
        matches!(found, Some(Subresource::Scale { .. }))
    }
}

/// A component's object is checked against its type like anybody's.
fn conform(call: &Call, body: Value, options: &WriteOptions) -> Result<Value> {
    let Some(root) = schema::builtin().root(&call.kind.gvk) else { return Ok(body) };
    let how = super::handlers::validation_of(&options.field_validation);
    let mut value = decode::value(body, root, how).map_err(Status::bad_request)?.value;
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".to_owned(), call.kind.gvk.api_version().into());
        map.insert("kind".to_owned(), call.kind.gvk.kind.clone().into());
    }
    Ok(value)
}

#[async_trait]
impl Client for LocalClient {
    async fn get(&self, target: &Target) -> Result<Value> {
        let call = self.call(target, "get", None).await?;
        let object = data::decode(&get::get(&call, "").await?)?;
        if Self::is_scale(&call) { scale::of(&call, &object) } else { Ok(object) }
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<List> {
        let call = self.call(target, "list", Some(options)).await?;
        let page = list::list(&call, options).await?;
        Ok(List {
            resource_version: page.revision,
            continue_token: page.continue_token,
            items: page.items,
        })
    }

    async fn watch(&self, target: &Target, options: &ListOptions) -> Result<Watch> {
        let call = self.call(target, "watch", Some(options)).await?;
        watch::watch(&call, options).await
    }

    async fn create(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Value> {
        if self.api.registry.load().resource(&target.gvr).is_none() {
            let attributes = self.attributes(target, "create");
            authorize(&self.api, &attributes).await?;
            let request = self.request();
            let dry_run = options.dry_run;
            let made = virtuals::create(&self.api, &attributes, &request, body, dry_run).await;
            return made.map(|(_, value)| value);
        }
        let mut call = self.call(target, "create", None).await?;
        if !target.subresource.is_empty() {
            return subresources::post(&call, body, options.dry_run).await;
        }
        // The name is in the body; the URL of a create has none.
        call.attributes.name.clear();
        let body = conform(&call, body, options)?;
        Ok(create::create(&call, body, options).await?.value)
    }

    async fn update(&self, target: &Target, body: Value, options: &WriteOptions) -> Result<Value> {
        let call = self.call(target, "update", None).await?;
        if Self::is_scale(&call) {
            return scale::write(&call, options, &|_| Ok(body.clone())).await;
        }
        let body = conform(&call, body, options)?;
        Ok(update::update(&call, body, options).await?.value)
    }

    async fn patch(
        &self,
        target: &Target,
        kind: PatchKind,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Value> {
        let call = self.call(target, "patch", None).await?;
        if Self::is_scale(&call) {
            return scale::patch_scale(&call, kind, &body, options).await;
        }
        Ok(patch::patch(&call, kind, &body, options).await?.value)
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Value> {
        let call = self.call(target, "delete", None).await?;
        Ok(match delete::delete(&call, options).await? {
            delete::Deleted::Ending(written) => written.value,
            delete::Deleted::Gone(last) if call.kind.strategy.returns_deleted() => *last,
            delete::Deleted::Gone(last) => {
                let uid = crate::object::meta::uid(&last);
                Status::deleted(&call.kind.gvr(), &target.name, uid).to_value()
            }
        })
    }

    async fn delete_collection(
        &self,
        target: &Target,
        options: &DeleteOptions,
        which: &ListOptions,
    ) -> Result<()> {
        let call = self.call(target, "deletecollection", Some(which)).await?;
        deletecollection::delete(&call, options, which).await.map(drop)
    }
}
