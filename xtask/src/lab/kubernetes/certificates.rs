//! Who may say who they are: a certificate authority, the certificates that it signs, and kubeconfigs with them.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde_json::{Value, json};

/// Whom a certificate names: a user, and the group it is in.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user's name.
    pub user: String,
    /// The group, if it is in one.
    pub group: Option<&'static str>,
}

impl Identity {
    /// A user of this name.
    pub fn user(user: &str) -> Self {
        Self { user: user.to_owned(), group: None }
    }

    /// Who may do everything.
    pub fn admin() -> Self {
        Self { user: "admin".to_owned(), group: Some("system:masters") }
    }

    /// The kubelet of a node.
    pub fn node(name: &str) -> Self {
        Self { user: format!("system:node:{name}"), group: Some("system:nodes") }
    }
}

/// A certificate authority, with the files of what it signed in one directory.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one, and the key pair of the service account tokens, in a directory.
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let mut parameters = parameters(&Identity::user("minicni test authority"))?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        fs::write(dir.join("ca.crt"), parameters.self_signed(&key)?.pem())?;
        fs::write(dir.join("ca.key"), key.serialize_pem())?;
        let tokens = KeyPair::generate()?;
        fs::write(dir.join("sa.key"), tokens.serialize_pem())?;
        fs::write(dir.join("sa.pub"), tokens.public_key_pem())?;
        Ok(Self { dir: dir.to_owned(), issuer: Issuer::new(parameters, key) })
    }

    /// The path of one of its files, such as `ca.crt`.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// Signs the certificate of a server with these addresses and names: `<name>.crt` and `<name>.key`.
    pub fn server(&self, name: &str, addresses: &[IpAddr], names: &[&str]) -> Result<()> {
        let mut parameters = parameters(&Identity::user(name))?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        for name in names {
            parameters.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        self.sign(name, &parameters)
    }

    /// Signs the certificate of a client: `<name>.crt` and `<name>.key`.
    pub fn client(&self, name: &str, identity: &Identity) -> Result<()> {
        let mut parameters = parameters(identity)?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, &parameters)
    }

    /// Signs the certificate of a client, and writes a kubeconfig with it: `<name>.kubeconfig`.
    pub fn kubeconfig(&self, name: &str, identity: &Identity, server: &str) -> Result<PathBuf> {
        self.client(name, identity)?;
        let user = json!({
            "client-certificate": self.path(&format!("{name}.crt")),
            "client-key": self.path(&format!("{name}.key")),
        });
        self.write_kubeconfig(name, &user, server)
    }

    /// Writes a kubeconfig with a token: `<name>.kubeconfig`.
    pub fn kubeconfig_with_token(&self, name: &str, token: &str, server: &str) -> Result<PathBuf> {
        self.write_kubeconfig(name, &json!({ "token": token }), server)
    }

    fn write_kubeconfig(&self, name: &str, user: &Value, server: &str) -> Result<PathBuf> {
        let path = self.path(&format!("{name}.kubeconfig"));
        let cluster = json!({ "server": server, "certificate-authority": self.path("ca.crt") });
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "lab", "cluster": cluster }],
            "users": [{ "name": name, "user": user }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": name } }],
            "current-context": "lab",
        });
        // JSON is YAML.
        fs::write(&path, serde_json::to_string_pretty(&kubeconfig)?)?;
        Ok(path)
    }

    fn sign(&self, name: &str, parameters: &CertificateParams) -> Result<()> {
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem())?;
        Ok(fs::write(self.path(&format!("{name}.crt")), certificate.pem())?)
    }
}

fn parameters(identity: &Identity) -> Result<CertificateParams> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, identity.user.as_str());
    if let Some(group) = identity.group {
        parameters.distinguished_name.push(DnType::OrganizationName, group);
    }
    Ok(parameters)
}
