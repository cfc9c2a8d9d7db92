//! SSH access to a machine: Berth's public key is written to it, and its SSH host key is read from it. Both go through
//! Incus, never through the network that they protect. The private host key stays on the machine.
//!
//! cloud-init installs the key from the user data. On images without it, Berth writes the file. Either way the file is
//! read first, and only written when the key is missing.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    client::{IncusClient, NewFile},
    fault::IncusFault,
    instance::{IncusInstance, tag},
};
use crate::error::{ProviderError, Result};

/// Time limit for storing the tags.
const TAG_LIMIT: Duration = Duration::from_secs(30);
/// The program of cloud-init, at the same path in every distribution.
const CLOUD_INIT: &str = "/usr/bin/cloud-init";
/// cloud-init creates it when it has nothing to do.
const CLOUD_INIT_DISABLED: &str = "/run/cloud-init/disabled";
/// cloud-init creates it when it has finished. Until then it may still replace the host keys and the user's keys.
const CLOUD_INIT_DONE: &str = "/var/lib/cloud/instance/boot-finished";
/// Longest host key line that is accepted: an RSA key of 16384 bits is shorter.
const LONGEST_KEY: usize = 8192;

/// User data for cloud-init. It is written as JSON, which is valid YAML.
pub(super) fn user_data(user: &str, host_name: &str, authorized_key: &str) -> String {
    let login = json!({
        "name": user,
        "ssh_authorized_keys": [authorized_key],
        // The password of an existing account stays as the image has it.
        "lock_passwd": user != "root",
    });
    let data = json!({
        "hostname": host_name,
        "disable_root": user != "root",
        "users": ["default", login],
    });
    format!("#cloud-config\n{data}\n")
}

/// An account in the machine's `/etc/passwd`.
#[derive(Debug, PartialEq, Eq)]
struct UserAccount {
    uid: u32,
    gid: u32,
    home: String,
}

/// Establishes SSH access to one machine.
pub(super) struct SshAccessSetup<'a> {
    pub(super) client: &'a IncusClient,
    pub(super) instance: &'a IncusInstance,
    /// Login name.
    pub(super) user: &'a str,
    /// The public key that the machine is to accept.
    pub(super) authorized_key: &'a str,
    pub(super) host_key_files: &'a [String],
}

impl SshAccessSetup<'_> {
    /// Installs the key and reads the host key. Returns false while the machine is still booting; the caller tries again
    /// when it next reads the machine.
    pub(super) async fn establish(&self) -> Result<bool> {
        match self.try_establish().await {
            Ok(done) => Ok(done),
            // The agent of a virtual machine starts late, and a machine may be going down.
            Err(AccessError::Incus(fault)) if is_temporary(&fault) => Ok(false),
            Err(AccessError::Incus(fault)) => Err(fault.while_doing(&format!("prepare {}", self.instance.name))),
            Err(AccessError::Class(error)) => Err(error),
        }
    }

    async fn try_establish(&self) -> std::result::Result<bool, AccessError> {
        if self.cloud_init_is_running().await? {
            return Ok(false);
        }
        self.install_key().await?;
        let Some(host_key) = self.host_key().await? else { return Ok(false) };
        self.store_tags(&host_key).await?;
        Ok(true)
    }

    async fn cloud_init_is_running(&self) -> std::result::Result<bool, IncusFault> {
        let name = &self.instance.name;
        Ok(self.client.has_file(name, CLOUD_INIT).await?
            && !self.client.has_file(name, CLOUD_INIT_DONE).await?
            && !self.client.has_file(name, CLOUD_INIT_DISABLED).await?)
    }

    async fn install_key(&self) -> std::result::Result<(), AccessError> {
        let account = self.account().await?;
        let name = &self.instance.name;
        let folder = format!("{}/.ssh", account.home);
        let path = format!("{folder}/authorized_keys");
        let present = self.client.read_file(name, &path).await?.unwrap_or_default();
        let Some(content) = with_key(&present, self.authorized_key) else { return Ok(()) };
        let of = |mode, content| NewFile { uid: account.uid, gid: account.gid, mode, content };
        if !self.client.has_file(name, &folder).await? {
            self.client.write_file(name, &folder, &of(0o700, None)).await?;
        }
        self.client.write_file(name, &path, &of(0o600, Some(content))).await?;
        Ok(())
    }

    async fn account(&self) -> std::result::Result<UserAccount, AccessError> {
        let passwd = self.client.read_file(&self.instance.name, "/etc/passwd").await?.unwrap_or_default();
        account(&passwd, self.user).ok_or_else(|| {
            AccessError::Class(ProviderError::Configuration(format!(
                "the machine has no user {:?} (spec.access.user of the MachineClass): use an image with that user or with \
                 cloud-init",
                self.user
            )))
        })
    }

    async fn host_key(&self) -> std::result::Result<Option<String>, IncusFault> {
        for path in self.host_key_files {
            let content = self.client.read_file(&self.instance.name, path).await?;
            if let Some(key) = content.as_deref().and_then(host_key) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    async fn store_tags(&self, host_key: &str) -> std::result::Result<(), IncusFault> {
        let config = json!({
            tag::HOST_KEY: host_key,
            tag::INSTANCE: self.instance.uuid(),
            tag::AUTHORIZED_KEY: self.authorized_key,
        });
        let body: Value = json!({ "config": config });
        let deadline = Instant::now() + TAG_LIMIT;
        self.client.change(Method::PATCH, &["instances", &self.instance.name], &[], Some(&body), deadline).await
    }
}

/// Why access could not be established.
enum AccessError {
    /// A call of Incus failed, which may be because the machine is booting.
    Incus(IncusFault),
    /// Only a change of the class helps.
    Class(ProviderError),
}

impl From<IncusFault> for AccessError {
    fn from(fault: IncusFault) -> Self {
        Self::Incus(fault)
    }
}

/// Whether the machine's files cannot be read at the moment: Incus's words for an agent that does not answer yet, and for
/// a container that does not run.
fn is_temporary(fault: &IncusFault) -> bool {
    let IncusFault::Refused { message, .. } = fault else { return false };
    let lower = message.to_lowercase();
    fault.is_missing() || ["agent", "not running", "stopped", "sftp", "eof"].iter().any(|word| lower.contains(word))
}

fn account(passwd: &[u8], user: &str) -> Option<UserAccount> {
    let text = String::from_utf8_lossy(passwd);
    let mut fields = text
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next() == Some(user)).then_some(fields))?;
    let (_, uid, gid) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let home = fields.nth(1)?.trim_end_matches('/');
    home.starts_with('/').then(|| UserAccount { uid, gid, home: home.to_owned() })
}

/// The content of the file with the key added; none if the key is in it already.
fn with_key(present: &[u8], key: &str) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(present);
    if text.lines().any(|line| line.trim() == key.trim()) {
        return None;
    }
    let mut content = present.to_vec();
    if !content.is_empty() && !content.ends_with(b"\n") {
        content.push(b'\n');
    }
    content.extend_from_slice(key.trim().as_bytes());
    content.push(b'\n');
    Some(content)
}

/// Kind and key from a public key file, without the comment; none while the file is being written.
fn host_key(content: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(content).ok().filter(|text| text.len() <= LONGEST_KEY)?;
    let (line, _) = text.split_once('\n')?;
    let mut words = line.split_ascii_whitespace();
    let (kind, key) = (words.next()?, words.next()?);
    let is_key = key.len() > 32 && key.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c));
    (is_key && (kind.starts_with("ssh-") || kind.starts_with("ecdsa-"))).then(|| format!("{kind} {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdvW3S+h3dQqVn0vJl/90ga3WKE+l3Fsl8xj1u2AbhS";

    #[test]
    fn a_host_key_is_accepted_when_its_line_is_complete() {
        assert_eq!(host_key(format!("{KEY} root@a\n").as_bytes()).as_deref(), Some(KEY));
        for cut in ["", KEY, "ssh-ed25519\n", "ssh-ed25519 AAAA\n", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"] {
            assert_eq!(host_key(cut.as_bytes()), None, "{cut}");
        }
    }

    #[test]
    fn a_key_is_added_once_and_other_keys_stay() {
        assert_eq!(with_key(b"", KEY).unwrap(), format!("{KEY}\n").into_bytes());
        let both = with_key(b"ssh-rsa other", KEY).unwrap();
        assert_eq!(both, format!("ssh-rsa other\n{KEY}\n").into_bytes());
        assert_eq!(with_key(&both, KEY), None);
    }

    #[test]
    fn accounts_are_read_from_passwd() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nberth:x:1000:1001:,,,:/home/berth/:/bin/bash\nodd:x:y:z::/:\n";
        assert_eq!(account(passwd, "berth"), Some(UserAccount { uid: 1000, gid: 1001, home: "/home/berth".into() }));
        assert_eq!(account(passwd, "root").unwrap().home, "/root");
        assert_eq!(account(passwd, "odd"), None);
        assert_eq!(account(passwd, "nobody"), None);
    }

    #[test]
    fn a_key_cannot_add_to_the_user_data() {
        let data = user_data("root", "web-1", "ssh-ed25519 A: \"b\"\nruncmd: [x]");
        let (head, body) = data.split_once('\n').unwrap();
        assert_eq!(head, "#cloud-config");
        let parsed: Value = serde_json::from_str(body).unwrap();
        assert_eq!(parsed["users"][1]["ssh_authorized_keys"][0], "ssh-ed25519 A: \"b\"\nruncmd: [x]");
        assert_eq!((&parsed["hostname"], &parsed["disable_root"]), (&json!("web-1"), &json!(false)));
    }
}
