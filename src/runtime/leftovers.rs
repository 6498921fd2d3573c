//! What nodes of ours leave on a host: containers, images, mounts; and how to be rid of it.
//!
//! Why beside the node and not in it: a host is cleaned when no node runs any more, and what is to
//! be removed is read from labels and names alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::engine::{Container, Engine, Result};
use super::labels;
use super::volumes::host;

/// What the names of images that the executable carries begin with.
const IMAGES: &str = "clusterd/";
/// How long a container gets to end before it is killed.
const GRACE: Duration = Duration::from_secs(1);

/// Containers and images of ours.
#[derive(Debug, Default)]
pub struct Made {
    /// Containers, of one node or of all.
    pub containers: Vec<Container>,
    /// Names of images that no node needs any more.
    pub images: Vec<String>,
}

impl Made {
    /// Looks; `node` is "" for the nodes of all names.
    pub async fn find(engine: &dyn Engine, node: &str) -> Result<Self> {
        let all = engine.list(labels::NODE, "").await?;
        let of_node = |one: &Container| {
            node.is_empty() || one.labels.get(labels::NODE).is_some_and(|of| of == node)
        };
        let (containers, others): (Vec<_>, Vec<_>) = all.into_iter().partition(of_node);
        let mut images = Vec::new();
        // Another node's pods may be about to use them.
        if others.is_empty() {
            let tags = engine.images().await?.into_iter().flat_map(|image| image.tags);
            images.extend(tags.filter(|tag| tag.starts_with(IMAGES)));
        }
        Ok(Self { containers, images })
    }

    /// One line each.
    pub fn lines(&self) -> Vec<String> {
        let containers = self.containers.iter().map(|one| {
            let label = |name: &str| one.labels.get(name).map_or("", String::as_str);
            let id: String = one.id.chars().take(12).collect();
            let pod = format!("{}/{}", label(labels::POD_NAMESPACE), label(labels::POD_NAME));
            format!("container {id} {pod} {}", label(labels::CONTAINER))
        });
        containers.chain(self.images.iter().map(|tag| format!("image {tag}"))).collect()
    }

    /// Removes them: containers first, since they use the images.
    pub async fn remove(&self, engine: &dyn Engine) -> Result<()> {
        for container in &self.containers {
            engine.stop(&container.id, GRACE).await?;
            engine.remove(&container.id).await?;
        }
        for image in &self.images {
            engine.remove_image(image).await?;
        }
        Ok(())
    }
}

/// Mounts below a folder, innermost last.
pub fn mounts(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    host::mounts_below(dir)
}

/// Unmounts them.
pub fn unmount(dir: &Path) -> std::io::Result<()> {
    host::unmount_below(dir)
}
