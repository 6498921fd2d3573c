//! Files that hold secrets: written whole or not at all, readable by their owner alone.
//!
//! Why write, sync, rename: a kill at any moment leaves the old file or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Error, Result};

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, source }
}

/// Makes a directory that only its owner may enter.
pub(super) fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))
}

/// The content of a file, `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}

/// Replaces a file by `text`, mode 0600.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        // A leftover of an earlier attempt could have another mode.
        if let Err(error) = fs::remove_file(&new)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().map_err(failed(path))
}

/// A certificate and its key, `STEM.crt` and `STEM.key`.
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    pub(super) fn new(dir: &Path, stem: &str) -> Self {
        Self { certificate: dir.join(format!("{stem}.crt")), key: dir.join(format!("{stem}.key")) }
    }

    /// What is there of certificate and key.
    pub(super) fn read(&self) -> Result<(Option<String>, Option<String>)> {
        Ok((read(&self.certificate)?, read(&self.key)?))
    }

    /// The key first: of a key alone a certificate can be made again.
    pub(super) fn write(&self, certificate: &str, key: &str) -> Result<()> {
        write(&self.key, key)?;
        write(&self.certificate, certificate)
    }
}
