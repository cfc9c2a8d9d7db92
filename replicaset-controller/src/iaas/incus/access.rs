//! How Berth gets into a machine: its key is put there, and the machine's SSH host key is read from there. Both through
//! Incus, never over the network that they protect. The private host key stays on the machine.
//!
//! An image with cloud-init gets the key by its user data. Into any other the file is written. In both cases what is on
//! the machine is looked at, and only a difference is written.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Error, Result,
    client::{Client, NewFile},
    fault::Fault,
    instance::{Instance, tag},
};

/// How long noting what was learnt may take.
const NOTE_LIMIT: Duration = Duration::from_secs(30);
/// The program of cloud-init, in every distribution.
const CLOUD_INIT: &str = "/usr/bin/cloud-init";
/// Written by cloud-init when it finds nothing that it is to do.
const CLOUD_INIT_DISABLED: &str = "/run/cloud-init/disabled";
/// Written by cloud-init at its end. Before, it may still exchange the host keys and write the user's keys.
const CLOUD_INIT_DONE: &str = "/var/lib/cloud/instance/boot-finished";
/// Longest host key line that is believed.
const LONGEST_KEY: usize = 8192;

/// User data for cloud-init, which ignores what it does not know. JSON is YAML.
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

/// Who logs in, according to the machine.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    uid: u32,
    gid: u32,
    home: String,
}

/// The way into one machine.
pub(super) struct Access<'a> {
    pub(super) client: &'a Client,
    pub(super) instance: &'a Instance,
    /// Login name.
    pub(super) user: &'a str,
    /// The public key that is to be let in.
    pub(super) authorized_key: &'a str,
    pub(super) host_key_files: &'a [String],
}

impl Access<'_> {
    /// Takes the running machine one look further: whether it now lets Berth in and its host key is known. False while
    /// it is still booting.
    pub(super) async fn establish(&self) -> Result<bool> {
        match self.try_establish().await {
            Ok(done) => Ok(done),
            // The agent of a virtual machine comes up late; a machine that goes down is looked at again, too.
            Err(Stop::Fault(fault)) if is_early(&fault) => Ok(false),
            Err(Stop::Fault(fault)) => Err(fault.while_doing(&format!("prepare {}", self.instance.name))),
            Err(Stop::Error(error)) => Err(error),
        }
    }

    async fn try_establish(&self) -> std::result::Result<bool, Stop> {
        if self.cloud_init_works().await? {
            return Ok(false);
        }
        self.let_in().await?;
        let Some(host_key) = self.host_key().await? else { return Ok(false) };
        self.note(&host_key).await?;
        Ok(true)
    }

    async fn cloud_init_works(&self) -> std::result::Result<bool, Fault> {
        let name = &self.instance.name;
        Ok(self.client.has_file(name, CLOUD_INIT).await?
            && !self.client.has_file(name, CLOUD_INIT_DONE).await?
            && !self.client.has_file(name, CLOUD_INIT_DISABLED).await?)
    }

    async fn let_in(&self) -> std::result::Result<(), Stop> {
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

    async fn account(&self) -> std::result::Result<Account, Stop> {
        let passwd = self.client.read_file(&self.instance.name, "/etc/passwd").await?.unwrap_or_default();
        account(&passwd, self.user).ok_or_else(|| {
            Stop::Error(Error::Configuration(format!(
                "the machine has no user {:?} (spec.access.user of the MachineClass): use an image with that user or with \
                 cloud-init",
                self.user
            )))
        })
    }

    async fn host_key(&self) -> std::result::Result<Option<String>, Fault> {
        for path in self.host_key_files {
            let content = self.client.read_file(&self.instance.name, path).await?;
            if let Some(key) = content.as_deref().and_then(host_key) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    async fn note(&self, host_key: &str) -> std::result::Result<(), Fault> {
        let config = json!({
            tag::HOST_KEY: host_key,
            tag::INSTANCE: self.instance.uuid(),
            tag::AUTHORIZED_KEY: self.authorized_key,
        });
        let body: Value = json!({ "config": config });
        let deadline = Instant::now() + NOTE_LIMIT;
        self.client.change(Method::PATCH, &["instances", &self.instance.name], &[], Some(&body), deadline).await
    }
}

/// Why no further step could be made.
enum Stop {
    Fault(Fault),
    Error(Error),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Whether the machine cannot be looked into just now: Incus's words for an agent that does not answer yet, and for a
/// container that is not there to be entered.
fn is_early(fault: &Fault) -> bool {
    let Fault::Refused { message, .. } = fault else { return false };
    let lower = message.to_lowercase();
    fault.is_missing() || ["agent", "not running", "stopped", "sftp", "eof"].iter().any(|word| lower.contains(word))
}

fn account(passwd: &[u8], user: &str) -> Option<Account> {
    let text = String::from_utf8_lossy(passwd);
    let mut fields = text
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next() == Some(user)).then_some(fields))?;
    let (_, uid, gid) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let home = fields.nth(1)?.trim_end_matches('/');
    home.starts_with('/').then(|| Account { uid, gid, home: home.to_owned() })
}

/// The file with the key added; none if the key is in it.
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

/// Kind and key of a public key file, without its comment; none while the file is being written.
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
    fn a_host_key_is_believed_when_its_line_is_whole() {
        assert_eq!(host_key(format!("{KEY} root@a\n").as_bytes()).as_deref(), Some(KEY));
        for cut in ["", KEY, "ssh-ed25519\n", "ssh-ed25519 AAAA\n", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"] {
            assert_eq!(host_key(cut.as_bytes()), None, "{cut}");
        }
    }

    #[test]
    fn a_key_is_added_once_and_others_stay() {
        assert_eq!(with_key(b"", KEY).unwrap(), format!("{KEY}\n").into_bytes());
        let both = with_key(b"ssh-rsa other", KEY).unwrap();
        assert_eq!(both, format!("ssh-rsa other\n{KEY}\n").into_bytes());
        assert_eq!(with_key(&both, KEY), None);
    }

    #[test]
    fn accounts_are_read_as_the_machine_has_them() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nberth:x:1000:1001:,,,:/home/berth/:/bin/bash\nodd:x:y:z::/:\n";
        assert_eq!(account(passwd, "berth"), Some(Account { uid: 1000, gid: 1001, home: "/home/berth".into() }));
        assert_eq!(account(passwd, "root").unwrap().home, "/root");
        assert_eq!(account(passwd, "odd"), None);
        assert_eq!(account(passwd, "nobody"), None);
    }

    #[test]
    fn user_data_cannot_be_broken_out_of() {
        let data = user_data("root", "web-1", "ssh-ed25519 A: \"b\"\nruncmd: [x]");
        let (head, body) = data.split_once('\n').unwrap();
        assert_eq!(head, "#cloud-config");
        let parsed: Value = serde_json::from_str(body).unwrap();
        assert_eq!(parsed["users"][1]["ssh_authorized_keys"][0], "ssh-ed25519 A: \"b\"\nruncmd: [x]");
        assert_eq!((&parsed["hostname"], &parsed["disable_root"]), (&json!("web-1"), &json!(false)));
    }
}
