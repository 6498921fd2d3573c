//! Volumes that need the kernel: host paths, empty directories (tmpfs among them), subpaths.
//!
//! A subpath is resolved by the kernel below its volume (`openat2`, beneath) and then held by its
//! descriptor while it is mounted, so a container that swaps a folder for a link in between gets
//! nothing from the host.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1 as core;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::object::quantity::Quantity;

/// The path on the host, checked or made as its type says.
pub fn host_path(source: &core::HostPathVolumeSource) -> Result<PathBuf, String> {
    let path = PathBuf::from(&source.path);
    let wanted = source.type_.as_deref().unwrap_or("");
    let found = fs::metadata(&path);
    let make = |done: std::io::Result<()>| done.map_err(|error| error.to_string());
    match (wanted, &found) {
        ("DirectoryOrCreate", Err(_)) => {
            make(fs::create_dir_all(&path))?;
            make(fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))?;
        }
        ("FileOrCreate", Err(_)) => {
            make(fs::File::create_new(&path).map(drop))?;
            make(fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))?;
        }
        _ => {}
    }
    let Ok(found) = fs::metadata(&path) else {
        // With no type nothing is checked; the engine would refuse a missing path.
        if wanted.is_empty() {
            make(fs::create_dir_all(&path))?;
            return Ok(path);
        }
        return Err(format!("hostPath type check failed: {} is not {}", source.path, a(wanted)));
    };
    let kind = found.file_type();
    let fits = match wanted {
        "Directory" | "DirectoryOrCreate" => kind.is_dir(),
        "File" | "FileOrCreate" => kind.is_file(),
        "Socket" => kind.is_socket(),
        "CharDevice" => kind.is_char_device(),
        "BlockDevice" => kind.is_block_device(),
        _ => true,
    };
    match fits {
        true => Ok(path),
        false => Err(format!("hostPath type check failed: {} is not {}", source.path, a(wanted))),
    }
}

fn a(wanted: &str) -> &'static str {
    match wanted {
        "Directory" | "DirectoryOrCreate" => "a directory",
        "File" | "FileOrCreate" => "a file",
        "Socket" => "a socket file",
        "CharDevice" => "a character device",
        _ => "a block device",
    }
}

/// An empty directory on disk or in memory, kept if it is there.
pub fn empty_dir(
    path: &Path,
    source: &core::EmptyDirVolumeSource,
    group: Option<i64>,
) -> Result<(), String> {
    if path.is_dir() {
        return Ok(());
    }
    let text = |error: std::io::Error| error.to_string();
    fs::create_dir_all(path).map_err(text)?;
    match source.medium.as_deref().unwrap_or("") {
        "" => {}
        "Memory" => {
            let limit = source.size_limit.as_ref().and_then(|text| Quantity::parse(&text.0).ok());
            let size = limit.map(|limit| limit.units()).filter(|size| *size > 0);
            let options = size.map(|size| format!("size={size}")).unwrap_or_default();
            let options = std::ffi::CString::new(options).map_err(|error| error.to_string())?;
            let flags = MountFlags::empty();
            rustix::mount::mount("tmpfs", path, "tmpfs", flags, Some(options.as_c_str()))
                .map_err(|error| error.to_string())?;
        }
        other => return Err(format!("unknown storage medium {other:?}")),
    }
    let mut mode = 0o777;
    if let Some(group) = group.and_then(|group| u32::try_from(group).ok()) {
        chown(path, None, Some(group)).map_err(text)?;
        mode |= 0o2000;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(text)
}

/// Mounts what is at `sub` below `volume` on `target` and returns `target`. A missing folder is
/// made, as upstream does.
pub fn sub_path(volume: &Path, sub: &str, target: &Path) -> Result<(), String> {
    let relative = Path::new(sub);
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if relative.is_absolute() || !relative.components().all(plain) {
        return Err(format!("subPath {sub:?} must be a relative path without '..'"));
    }
    let found = open_beneath(volume, relative)
        .map_err(|error| format!("failed to prepare subPath {sub:?} : {error}"))?;
    let text = |error: std::io::Error| error.to_string();
    let metadata = rustix::fs::fstat(found.as_fd()).map_err(|error| error.to_string())?;
    let is_dir = metadata.st_mode & 0o170_000 == 0o040_000;
    unmount(target).map_err(text)?;
    if let Some(above) = target.parent() {
        fs::create_dir_all(above).map_err(text)?;
    }
    match is_dir {
        true => fs::create_dir_all(target).map_err(text)?,
        false => fs::File::create(target).map(drop).map_err(text)?,
    }
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    rustix::mount::mount_bind(source, target).map_err(|error| error.to_string())
}

/// Opens a path without ever leaving `root`; folders that are missing are made on the way.
fn open_beneath(root: &Path, relative: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let root = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty())?;
    let mut done = PathBuf::new();
    let mut at = rustix::fs::openat2(&root, ".", flags, Mode::empty(), resolve)?;
    for part in relative.components() {
        let Component::Normal(name) = part else { continue };
        done.push(name);
        at = match rustix::fs::openat2(&root, &done, flags, Mode::empty(), resolve) {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o750))?;
                rustix::fs::openat2(&root, &done, flags, Mode::empty(), resolve)?
            }
            other => other?,
        };
    }
    Ok(at)
}

fn unmount(path: &Path) -> std::io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What is mounted below a folder, innermost last.
pub fn mounts_below(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|text| PathBuf::from(text.replace("\\040", " ")))
        .filter(|point| point.starts_with(dir))
        .collect();
    points.sort();
    Ok(points)
}

/// Unmounts everything below a folder, innermost first.
pub fn unmount_below(dir: &Path) -> std::io::Result<()> {
    mounts_below(dir)?.iter().rev().try_for_each(|point| unmount(point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subpath_never_leaves_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("inner")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("inner", volume.join("in")).unwrap();
        assert!(open_beneath(&volume, Path::new("out")).is_err());
        assert!(open_beneath(&volume, Path::new("out/passwd")).is_err());
        assert!(open_beneath(&volume, Path::new("in")).is_ok());
        assert!(open_beneath(&volume, Path::new("made/on/the/way")).is_ok());
        assert!(volume.join("made/on/the/way").is_dir());
        let target = dir.path().join("t");
        assert!(sub_path(&volume, "../x", &target).is_err());
        assert!(sub_path(&volume, "/etc", &target).is_err());
    }

    #[test]
    fn a_host_path_is_what_its_type_says() {
        let dir = tempfile::tempdir().unwrap();
        let source = |name: &str, kind: &str| core::HostPathVolumeSource {
            path: dir.path().join(name).display().to_string(),
            type_: Some(kind.to_owned()),
        };
        assert!(host_path(&source("d", "Directory")).is_err());
        assert!(host_path(&source("d", "DirectoryOrCreate")).unwrap().is_dir());
        assert!(host_path(&source("f", "FileOrCreate")).unwrap().is_file());
        let error = host_path(&source("f", "Directory")).unwrap_err();
        assert!(error.ends_with("is not a directory"), "{error}");
    }
}
