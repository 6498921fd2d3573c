//! The images that clusterd carries: the pause program of sandboxes and the sample server.
//!
//! Why packed here: a pod must start where no registry answers. `build.rs` compiles the programs;
//! this file makes image archives of them (the form of `docker save`), which the engine loads once.

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::engine::{Engine, Result};

/// The sandbox's image.
pub const PAUSE_IMAGE: &str = concat!("clusterd/pause:", env!("CARGO_PKG_VERSION"));
/// The sample's images: two versions of one program, so that a rollout can be shown.
pub const SAMPLE_IMAGES: [(&str, &str); 2] =
    [("clusterd/sample:v1", "v1"), ("clusterd/sample:v2", "v2")];

const PAUSE_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));
const SAMPLE_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sample"));

/// A program as an image of its own.
struct Carried<'a> {
    name: &'a str,
    program: &'static [u8],
    path: &'a str,
    env: Vec<String>,
    user: &'a str,
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entry(builder: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    // Fixed times make equal programs equal images.
    header.set_mtime(0);
    // Writing to memory can't fail.
    builder.append_data(&mut header, path, bytes).ok();
}

impl Carried<'_> {
    fn archive(&self) -> Bytes {
        let mut layer = tar::Builder::new(Vec::new());
        entry(&mut layer, self.path.trim_start_matches('/'), self.program, 0o755);
        let layer = layer.into_inner().unwrap_or_default();
        let config = json!({
            "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", _ => "amd64" },
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Entrypoint": [self.path],
                "Env": self.env,
                "User": self.user,
                "Labels": {"io.clusterd.carried": "true"},
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "clusterd"}],
        })
        .to_string();
        let config_name = format!("{}.json", hex(config.as_bytes()));
        let manifest =
            json!([{"Config": config_name, "RepoTags": [self.name], "Layers": ["layer.tar"]}]);
        let mut archive = tar::Builder::new(Vec::new());
        entry(&mut archive, &config_name, config.as_bytes(), 0o644);
        entry(&mut archive, "layer.tar", &layer, 0o644);
        entry(&mut archive, "manifest.json", manifest.to_string().as_bytes(), 0o644);
        Bytes::from(archive.into_inner().unwrap_or_default())
    }
}

/// Loads an image that is not there under its name.
async fn provide(engine: &dyn Engine, image: &Carried<'_>) -> Result<()> {
    if engine.image(image.name).await?.is_none() {
        engine.load(image.archive()).await?;
    }
    Ok(())
}

/// Makes sure that the sandbox's image is there.
pub async fn provide_pause(engine: &dyn Engine) -> Result<()> {
    let image = Carried {
        name: PAUSE_IMAGE,
        program: PAUSE_PROGRAM,
        path: "/pause",
        env: Vec::new(),
        user: "65535:65535",
    };
    provide(engine, &image).await
}

/// Answers a pull of one of the sample's images; `false`: it is none of them.
pub async fn provide_sample(engine: &dyn Engine, name: &str) -> Result<bool> {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    let Some((name, version)) = SAMPLE_IMAGES.iter().find(|(image, _)| *image == short) else {
        return Ok(false);
    };
    let env = vec![format!("SAMPLE_VERSION={version}")];
    let image =
        Carried { name, program: SAMPLE_PROGRAM, path: "/sample", env, user: "65534:65534" };
    provide(engine, &image).await.map(|()| true)
}

/// The names of all images that clusterd makes on a host.
pub fn names() -> Vec<&'static str> {
    std::iter::once(PAUSE_IMAGE).chain(SAMPLE_IMAGES.map(|(name, _)| name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::FakeEngine;
    use crate::stdx::clock::SystemClock;

    #[tokio::test]
    async fn carried_images_are_loaded_once_under_their_names() {
        let engine = FakeEngine::new(SystemClock::shared(), &[]);
        provide_pause(&engine).await.unwrap();
        for (name, _) in SAMPLE_IMAGES {
            assert!(provide_sample(&engine, name).await.unwrap());
        }
        assert!(!provide_sample(&engine, "nginx:latest").await.unwrap());
        for name in names() {
            assert!(engine.image(name).await.unwrap().is_some(), "{name}");
        }
    }
}
