//! A pod's volumes: exactly one source each, and what each source needs.
//!
//! Why a table for the sources: most only have fields that must be there; the few with rules of
//! their own are functions.

use super::super::field::{Errors, Field};
use super::super::{names, validate};
use super::Owner;
use super::env::{Place, field_reference, resource_reference};

/// The sources in upstream's order, with the fields that each must have.
const SOURCES: &[(&str, &[&str])] = &[
    ("emptyDir", &[]),
    ("hostPath", &["path"]),
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("secret", &["secretName"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("flocker", &[]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["monitors", "image"]),
    ("cinder", &["volumeID"]),
    ("cephfs", &["monitors"]),
    ("quobyte", &["registry", "volume"]),
    ("downwardAPI", &[]),
    ("fc", &[]),
    ("flexVolume", &["driver"]),
    ("configMap", &["name"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("storageos", &["volumeName"]),
    ("projected", &[]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("csi", &["driver"]),
    ("ephemeral", &["volumeClaimTemplate"]),
    ("image", &[]),
];

const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// A volume that passed, by name.
pub(super) struct Volume<'v> {
    pub(super) name: &'v str,
    /// Backed by a PersistentVolumeClaim, so a block device may be made of it.
    pub(super) claim: bool,
}

/// Checks `volumes` and gives those without a fault.
pub(super) fn all<'v>(
    list: &Field<'_, 'v>,
    pod: Option<&str>,
    owner: Owner,
    out: &mut Errors,
) -> Vec<Volume<'v>> {
    let mut good: Vec<Volume<'v>> = Vec::new();
    for volume in list.items() {
        let before = out.len();
        source(&volume, pod, owner, out);
        let name = volume.get("name");
        validate::required_format(&name, names::dns_label, out);
        if good.iter().any(|other| other.name == name.text()) {
            out.push(name.duplicate());
        }
        if out.len() == before {
            let claim =
                volume.get("persistentVolumeClaim").is_set() || volume.get("ephemeral").is_set();
            good.push(Volume { name: name.text(), claim });
        }
        claim_is_not_made_here(list, &volume, pod, out);
    }
    good
}

fn claim_is_not_made_here(list: &Field, volume: &Field, pod: Option<&str>, out: &mut Errors) {
    let Some(pod) = pod.filter(|pod| !pod.is_empty()) else { return };
    let claim = volume.get("persistentVolumeClaim");
    let claim = claim.get("claimName");
    let made = list.items().any(|other| {
        other.get("ephemeral").is_set()
            && format!("{pod}-{}", other.get("name").text()) == claim.text()
    });
    if made && claim.is_set() {
        let why = "must not reference a PVC that gets created for an ephemeral volume";
        out.push(claim.invalid(why));
    }
}

fn source(volume: &Field, pod: Option<&str>, owner: Owner, out: &mut Errors) {
    let mut found = false;
    for (name, required) in SOURCES {
        let source = volume.get(name);
        if !source.is_set() {
            continue;
        }
        if found {
            out.push(source.forbidden("may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        for field in *required {
            validate::required(&source.get(field), out);
        }
        match *name {
            "emptyDir" => empty_dir(&source, out),
            "hostPath" if !source.get("path").is_empty() => {
                validate::no_backsteps(&source.get("path"), out);
                validate::optional_one_of(&source.get("type"), HOST_PATH_TYPES, out);
            }
            "secret" | "configMap" => {
                validate::file_mode(&source.get("defaultMode"), out);
                source.get("items").items().for_each(|item| key_to_path(&item, out));
            }
            "nfs" if !source.get("path").text().starts_with('/') => {
                let path = source.get("path");
                out.push(path.invalid_as(path.text(), "must be an absolute path"));
            }
            "downwardAPI" => {
                validate::file_mode(&source.get("defaultMode"), out);
                // Upstream leaves the item's index out of the path.
                source.get("items").items().for_each(|item| {
                    downward_file(&source.named("", item.value()), out);
                });
            }
            "projected" => projected(&source, out),
            "ephemeral" => {
                let (pod, name) = (pod.unwrap_or(""), volume.get("name"));
                if !pod.is_empty() && !name.text().is_empty() {
                    let claim = format!("{pod}-{}", name.text());
                    for fault in names::dns_subdomain(&claim) {
                        out.push(name.invalid(format!("PVC name {claim:?}: {fault}")));
                    }
                }
            }
            "image" => {
                if owner == Owner::Pod {
                    validate::required(&source.get("reference"), out);
                }
                super::containers::pull_policy(&source.get("pullPolicy"), out);
            }
            _ => {}
        }
    }
    if !found {
        out.push(volume.required("must specify a volume type"));
    }
}

fn empty_dir(source: &Field, out: &mut Errors) {
    let limit = source.get("sizeLimit");
    if validate::quantity(limit.value()).is_some_and(|limit| limit.is_negative()) {
        out.push(limit.forbidden("SizeLimit field must be a valid resource quantity"));
    }
}

fn key_to_path(item: &Field, out: &mut Errors) {
    validate::required(&item.get("key"), out);
    validate::required(&item.get("path"), out);
    validate::unreserved_path(&item.get("path"), out);
    validate::file_mode(&item.get("mode"), out);
}

fn downward_file(file: &Field, out: &mut Errors) {
    validate::required(&file.get("path"), out);
    validate::unreserved_path(&file.get("path"), out);
    let (field, resource) = (file.get("fieldRef"), file.get("resourceFieldRef"));
    if field.is_set() {
        field_reference(&field, Place::Volume, out);
        if resource.is_set() {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            out.push(file.invalid_as("resource", why));
        }
    } else if resource.is_set() {
        resource_reference(&resource, Place::Volume, out);
    } else {
        out.push(file.required("one of fieldRef and resourceFieldRef is required"));
    }
    validate::file_mode(&file.get("mode"), out);
}

fn projected(projected: &Field, out: &mut Errors) {
    validate::file_mode(&projected.get("defaultMode"), out);
    let mut paths: Vec<String> = Vec::new();
    for source in projected.get("sources").items() {
        let mut count = 0;
        for (name, _) in source.entries() {
            let field = source.get(name);
            if !field.is_set() {
                continue;
            }
            count += 1;
            match name {
                "secret" | "configMap" => {
                    validate::required(&field.get("name"), out);
                    for item in field.get("items").items() {
                        key_to_path(&item, out);
                        let shown = field.get("name").text().to_owned();
                        claim_path(projected, item.get("path").text(), &shown, &mut paths, out);
                    }
                }
                "downwardAPI" => {
                    for item in field.get("items").items() {
                        downward_file(&field.named("", item.value()), out);
                        let path = item.get("path").text().to_owned();
                        claim_path(projected, &path, &path, &mut paths, out);
                    }
                }
                "serviceAccountToken" => token(projected, &field, out),
                "clusterTrustBundle" => trust_bundle(&field, out),
                _ => {}
            }
        }
        if count > 1 {
            out.push(source.forbidden("may not specify more than 1 volume type per source"));
        }
    }
}

fn claim_path(
    projected: &Field,
    path: &str,
    shown: &str,
    paths: &mut Vec<String>,
    out: &mut Errors,
) {
    if path.is_empty() {
        return;
    }
    if paths.iter().any(|other| other == path) {
        out.push(projected.invalid_as(shown, "conflicting duplicate paths"));
    } else {
        paths.push(path.to_owned());
    }
}

fn token(projected: &Field, token: &Field, out: &mut Errors) {
    let seconds = token.get("expirationSeconds");
    if seconds.int().unwrap_or(0) < 600 {
        out.push(seconds.invalid("may not specify a duration less than 10 minutes"));
    }
    if seconds.int().unwrap_or(0) > 1 << 32 {
        out.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
    }
    // Upstream names the volume's path, not the source's.
    let path = projected.named("path", token.get("path").value());
    validate::required(&path, out);
    validate::unreserved_path(&path, out);
}

fn trust_bundle(field: &Field, out: &mut Errors) {
    let (name, signer) = (field.get("name"), field.get("signerName"));
    match (name.is_set(), signer.is_set()) {
        (true, true) => {
            let why = "only one of name and signerName may be used";
            out.push(field.invalid(why));
        }
        (false, false) => {
            out.push(field.required("either name or signerName must be specified"));
        }
        _ => validate::label_selector(&field.get("labelSelector"), out),
    }
    validate::required(&field.get("path"), out);
    validate::unreserved_path(&field.get("path"), out);
}
