//! DELETE of a collection: each matching object, as if deleted by itself.

use futures::{TryStreamExt, stream};

use super::delete;
use super::list::{self, Page};
use crate::api::server::Call;
use crate::client::{DeleteOptions, ListOptions};
use crate::object::meta;
use crate::object::status::Result;

/// Deletes in flight at once (upstream's `--delete-collection-workers`); the rest wait.
const AT_ONCE: usize = 8;

/// Deletes what matches; the objects as they were.
pub async fn delete(call: &Call, options: &DeleteOptions, which: &ListOptions) -> Result<Page> {
    let page = list::list(call, which).await?;
    let kind = &call.kind;
    stream::iter(page.items.iter().map(Ok))
        .try_for_each_concurrent(AT_ONCE, |bytes| async move {
            let object = crate::api::data::decode(bytes)?;
            let mut one = call.again(meta::name(&object));
            if kind.namespaced {
                meta::namespace(&object).clone_into(&mut one.attributes.namespace);
            }
            match delete::delete(&one, options).await {
                Ok(_) => Ok(()),
                Err(status) if status.is_not_found() => Ok(()),
                Err(status) => Err(status),
            }
        })
        .await?;
    Ok(page)
}
