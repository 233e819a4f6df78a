//! Packs files as an image: a docker archive and an OCI layout in one tar, so that `docker load`, `ctr image import`,
//! `podman load` and `kind load image-archive` take it. The same files give the same bytes.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>,
//! <https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md#combined-image-json--filesystem-changeset-format>

use std::io::Write as _;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::{
    Command,
    root::{Entry, Root},
};

/// When everything was made: always the same.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Where an image has programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// An image, packed.
pub(super) struct Image {
    /// The archive.
    pub(super) bytes: Vec<u8>,
    /// The digest of its manifest, by which registries and runtimes know it.
    pub(super) digest: String,
    /// The size of its layer in bytes.
    pub(super) compressed: usize,
    /// The size of its files in bytes.
    pub(super) unpacked: usize,
}

/// Packs an image of one layer under a name with a tag.
pub(super) fn pack(root: &Root, name: &str, command: &Command) -> Result<Image> {
    let (_, tag) = name.rsplit_once(':').with_context(|| format!("the image's name {name} has no tag"))?;
    let files = layer(root)?;
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gzip.write_all(&files)?;
    let mut archive = Archive::default();
    let layer = archive.blob("application/vnd.oci.image.layer.v1.tar+gzip", gzip.finish()?);
    let compressed = layer.size;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": CREATED,
        "config": {
            "Env": [format!("PATH={PATH}")],
            "Entrypoint": [command.program],
            "Cmd": command.arguments,
            "Labels": { "org.opencontainers.image.version": env!("CARGO_PKG_VERSION") },
        },
        "rootfs": { "type": "layers", "diff_ids": [digest(&files)] },
        "history": [{ "created": CREATED, "created_by": "cargo xtask image" }],
    });
    let config = archive.blob("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type, "config": config.descriptor(), "layers": [layer.descriptor()],
    });
    let manifest = archive.blob(media_type, manifest.to_string().into_bytes());
    let mut descriptor = manifest.descriptor();
    // containerd takes the first for the image's name, others the second.
    descriptor["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
    archive.file("index.json", json!({ "schemaVersion": 2, "manifests": [descriptor] }).to_string().into_bytes());
    archive.file("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }).to_string().into_bytes());
    let docker = json!([{ "Config": config.path(), "RepoTags": [name], "Layers": [layer.path()] }]);
    archive.file("manifest.json", docker.to_string().into_bytes());
    Ok(Image { bytes: archive.tar()?, digest: manifest.digest, compressed, unpacked: files.len() })
}

/// As OCI calls what we are built for.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// The files as a tar.
fn layer(root: &Root) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for directory in root.directories() {
        tar.append_data(&mut header(EntryType::Directory, 0o755, 0), directory, &[][..])?;
    }
    for (path, entry) in root.entries() {
        match entry {
            Entry::Link(target) => tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)?,
            Entry::File(contents, mode) => {
                tar.append_data(&mut header(EntryType::Regular, *mode, contents.len()), path, contents.as_slice())?;
            }
        }
    }
    Ok(tar.into_inner()?)
}

/// Owned by root, as old as can be.
fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// Something that is known by its digest.
struct Blob {
    media_type: &'static str,
    digest: String,
    size: usize,
}

impl Blob {
    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.size })
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

#[derive(Default)]
struct Archive {
    files: Vec<(String, Vec<u8>)>,
}

impl Archive {
    fn blob(&mut self, media_type: &'static str, bytes: Vec<u8>) -> Blob {
        let blob = Blob { media_type, digest: digest(&bytes), size: bytes.len() };
        self.file(&blob.path(), bytes);
        blob
    }

    fn file(&mut self, path: &str, bytes: Vec<u8>) {
        self.files.push((path.to_owned(), bytes));
    }

    fn tar(self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for directory in ["blobs", "blobs/sha256"] {
            tar.append_data(&mut header(EntryType::Directory, 0o755, 0), directory, &[][..])?;
        }
        for (path, bytes) in &self.files {
            tar.append_data(&mut header(EntryType::Regular, 0o644, bytes.len()), path, bytes.as_slice())?;
        }
        Ok(tar.into_inner()?)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use super::{super::COMMAND, *};
    use crate::command::root as sources;

    fn root() -> Root {
        let mut root = Root::default();
        root.add_text("usr/share/b", "two".into());
        root.add_text("a", "one".into());
        root.link("lib", "usr/lib");
        root
    }

    fn unpack(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let files = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), contents)
        });
        files.collect()
    }

    #[test]
    fn the_same_files_give_the_same_bytes_and_others_another_digest() {
        let (one, other) =
            (pack(&root(), "minicni:1", &COMMAND).unwrap(), pack(&root(), "minicni:1", &COMMAND).unwrap());
        assert_eq!(one.bytes, other.bytes);
        let mut more = root();
        more.add_text("c", String::new());
        assert_ne!(pack(&more, "minicni:1", &COMMAND).unwrap().digest, one.digest);
        assert!(pack(&root(), "minicni", &COMMAND).is_err());
    }

    #[test]
    fn the_dockerfile_executes_what_the_image_does() {
        let dockerfile = std::fs::read_to_string(sources().join("Dockerfile")).unwrap();
        let Command { program, arguments } = COMMAND;
        let expected = [
            "COPY --from=build /image /".to_owned(),
            format!("ENV PATH={PATH}"),
            format!("ENTRYPOINT {}", json!([program])),
            format!("CMD {}", json!(arguments)),
        ];
        let (_, last) = dockerfile.split_once("FROM scratch\n").unwrap();
        assert_eq!(last.lines().collect::<Vec<_>>(), expected);
        assert!(dockerfile.contains("\nRUN cargo xtask image --root /image\n"), "{dockerfile}");
    }

    #[test]
    fn everything_is_where_the_manifests_say_and_has_the_digest_that_they_say() {
        let files = unpack(&pack(&root(), "example/minicni:1", &COMMAND).unwrap().bytes);
        let read = |path: &str| serde_json::from_slice::<Value>(&files[path]).unwrap();
        let blob = |descriptor: &Value| {
            let name = descriptor["digest"].as_str().unwrap();
            let bytes = &files[&format!("blobs/{}", name.replace(':', "/"))];
            assert_eq!((digest(bytes).as_str(), json!(bytes.len())), (name, descriptor["size"].clone()));
            bytes.clone()
        };
        let index = read("index.json");
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        let mut layer = Vec::new();
        flate2::read::GzDecoder::new(blob(&manifest["layers"][0]).as_slice()).read_to_end(&mut layer).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest(&layer)]));
        let names: Vec<_> = unpack(&layer).into_keys().collect();
        assert_eq!(names, ["a", "lib", "usr", "usr/share", "usr/share/b"]);
        let docker = read("manifest.json");
        assert_eq!(docker[0]["RepoTags"], json!(["example/minicni:1"]));
        assert_eq!(read(docker[0]["Config"].as_str().unwrap()), config);
        assert!(files.contains_key(docker[0]["Layers"][0].as_str().unwrap()));
    }
}
