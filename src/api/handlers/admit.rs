//! A write's way through the admission plug-ins.
//!
//! Why one value: the object changes hands between plug-ins, strategy and validation without being
//! copied.

use std::sync::Arc;

use crate::api::admission::{Operation, Request};
use crate::api::server::Call;
use crate::object::Value;
use crate::object::status::Result;

/// The admission of one write.
pub struct Admission<'a> {
    call: &'a Call,
    request: Request,
}

impl<'a> Admission<'a> {
    /// Of a write of `name`.
    pub fn new(
        call: &'a Call,
        operation: Operation,
        name: &str,
        old: Option<Arc<Value>>,
        dry_run: bool,
    ) -> Self {
        let mut attributes = call.attributes.clone();
        if attributes.namespace.is_empty() && call.kind.resource == "namespaces" {
            name.clone_into(&mut attributes.namespace);
        }
        let request = Request {
            attributes,
            operation,
            gvk: call.kind.gvk.clone(),
            object: None,
            old,
            name: name.to_owned(),
            dry_run,
            warnings: Vec::new(),
        };
        Self { call, request }
    }

    /// The object as the plug-ins want it.
    pub async fn mutate(&mut self, object: Value) -> Result<Value> {
        self.request.object = Some(object);
        let admitted = async {
            for plugin in &self.call.api.admission {
                plugin.admit(&mut self.request).await?;
            }
            Ok(())
        };
        let result = admitted.await;
        self.tell();
        result.map(|()| self.request.object.take().unwrap_or_default())
    }

    /// Whether no plug-in objects; hands the object back.
    pub async fn validate(&mut self, object: Value) -> Result<Value> {
        self.request.object = Some(object);
        self.refuse().await?;
        Ok(self.request.object.take().unwrap_or_default())
    }

    /// Both steps for a delete or a connect, which bring no object.
    pub async fn without_object(&mut self) -> Result<()> {
        for plugin in &self.call.api.admission {
            plugin.admit(&mut self.request).await?;
        }
        self.tell();
        self.refuse().await
    }

    async fn refuse(&mut self) -> Result<()> {
        for plugin in &self.call.api.admission {
            plugin.validate(&self.request).await?;
        }
        Ok(())
    }

    fn tell(&mut self) {
        for text in self.request.warnings.drain(..) {
            self.call.warn(text);
        }
    }
}
