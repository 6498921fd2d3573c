//! Writes a set of files so that a reader sees all old or all new ones.
//!
//! The layout is upstream's, which programs rely on: the files stand in a folder of their own, a
//! link `..data` points to it, and each visible name is a link through `..data`. A new set is a new
//! folder and one rename of the link.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use super::content::Files;
use crate::stdx::ids;

/// The link to the present set.
const DATA: &str = "..data";
/// The link before it is renamed.
const DATA_NEW: &str = "..data_tmp";
/// Beginning of the folders of sets.
const SET: &str = "..set_";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// It belongs to the pod's only user, if there is one.
    pub user: bool,
}

/// To whom files belong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner {
    /// The pod's only user.
    pub user: Option<i64>,
    /// The pod's `fsGroup`: it may read everything.
    pub group: Option<i64>,
}

fn is_plain(path: &str) -> bool {
    let parts = Path::new(path).components();
    !path.is_empty()
        && !path.starts_with("..")
        && parts.into_iter().all(|part| matches!(part, Component::Normal(_)))
}

/// Makes `dir` show exactly `files`.
pub fn write(dir: &Path, files: &Files, owner: &Owner) -> io::Result<()> {
    if let Some(path) = files.keys().find(|path| !is_plain(path)) {
        return Err(io::Error::other(format!("invalid path {path:?}")));
    }
    if !dir.is_dir() {
        fs::create_dir_all(dir)?;
        own(dir, 0o777, owner, false)?;
    }
    let old = fs::read_link(dir.join(DATA)).ok();
    if let Some(old) = &old
        && holds(&dir.join(old), files, owner)?
    {
        return Ok(());
    }
    let name = format!("{SET}{}", ids::suffix(10));
    let set = dir.join(&name);
    fs::create_dir(&set)?;
    own(&set, 0o755, owner, false)?;
    for (path, file) in files {
        place(&set, path, file, owner)?;
    }
    let new = dir.join(DATA_NEW);
    fs::remove_file(&new).or_else(ignore_missing)?;
    symlink(&name, &new)?;
    fs::rename(&new, dir.join(DATA))?;
    link_names(dir, files)?;
    if let Some(old) = old.filter(|old| is_set(old)) {
        fs::remove_dir_all(dir.join(old)).or_else(ignore_missing)?;
    }
    Ok(())
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn is_set(name: &Path) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(SET))
}

/// The permissions that a file really gets: upstream lets the group read what it owns.
fn final_mode(file: &File, owner: &Owner) -> u32 {
    if owner.group.is_some() { file.mode | 0o440 } else { file.mode }
}

fn place(set: &Path, path: &str, file: &File, owner: &Owner) -> io::Result<()> {
    let target = set.join(path);
    let mut above: Vec<PathBuf> = Vec::new();
    let mut parent = target.parent();
    while let Some(folder) = parent.filter(|folder| *folder != set && !folder.exists()) {
        above.push(folder.to_owned());
        parent = folder.parent();
    }
    for folder in above.iter().rev() {
        fs::create_dir(folder)?;
        own(folder, 0o755, owner, false)?;
    }
    let mut options = fs::OpenOptions::new();
    let mut out = options.write(true).create_new(true).mode(0o600).open(&target)?;
    out.write_all(&file.bytes)?;
    own(&target, final_mode(file, owner), owner, file.user)
}

fn own(path: &Path, mode: u32, owner: &Owner, users: bool) -> io::Result<()> {
    let user = owner.user.filter(|_| users).and_then(|user| u32::try_from(user).ok());
    let group = owner.group.and_then(|group| u32::try_from(group).ok());
    if user.is_some() || group.is_some() {
        chown(path, user, group)?;
    }
    // New files inside belong to the group, too.
    let mode = if group.is_some() && path.is_dir() { mode | 0o2070 } else { mode };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Whether the set in `dir` is just `files`.
fn holds(dir: &Path, files: &Files, owner: &Owner) -> io::Result<bool> {
    for (path, file) in files {
        let path = dir.join(path);
        let Ok(metadata) = fs::metadata(&path) else { return Ok(false) };
        let mode = metadata.permissions().mode() & 0o7777;
        if mode != final_mode(file, owner) || fs::read(&path)? != file.bytes {
            return Ok(false);
        }
    }
    Ok(count(dir)? == files.len())
}

fn count(dir: &Path) -> io::Result<usize> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(0) };
    let mut files = 0;
    for entry in entries {
        let path = entry?.path();
        files += if path.is_dir() { count(&path)? } else { 1 };
    }
    Ok(files)
}

/// Visible names are links through `..data`; links of names that are gone are removed.
fn link_names(dir: &Path, files: &Files) -> io::Result<()> {
    let first = |path: &String| path.split('/').next().unwrap_or("").to_owned();
    let names: BTreeSet<String> = files.keys().map(first).collect();
    for name in &names {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !names.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File { bytes: text.as_bytes().to_vec(), mode: 0o640, user: false }
    }

    #[test]
    fn a_new_set_replaces_the_old_one_by_one_rename() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("v");
        let first = [("a".to_owned(), file("1")), ("d/x".to_owned(), file("2"))].into();
        write(&dir, &first, &Owner::default()).unwrap();
        let before = fs::read_link(dir.join(DATA)).unwrap();
        assert_eq!(fs::read_to_string(dir.join("d/x")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        // The same content leaves everything as it is.
        write(&dir, &first, &Owner::default()).unwrap();
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), before);
        let second = [("a".to_owned(), file("3")), ("b".to_owned(), file("4"))].into();
        write(&dir, &second, &Owner::default()).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert!(!dir.join("d").exists() && !dir.join(before).exists());
        let names: BTreeSet<String> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(".."))
            .collect();
        assert_eq!(names, ["a", "b"].map(str::to_owned).into());
    }

    #[test]
    fn a_path_that_leaves_the_volume_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "..x", ""] {
            let files = [(path.to_owned(), file("1"))].into();
            assert!(write(dir.path(), &files, &Owner::default()).is_err(), "{path}");
        }
    }
}
