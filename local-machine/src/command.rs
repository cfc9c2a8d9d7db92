//! Runs one command on the machine for an SSH client.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
};

use russh::{
    Channel, ChannelMsg, ChannelWriteHalf, Sig,
    server::{Handle, Msg},
};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, Command},
};
use tokio_util::sync::CancellationToken;

use crate::{
    dir::{MachineDir, MachineInfo},
    process::ID_VARIABLE,
};

/// The search path of a login on Debian.
const STANDARD_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The type of extended data that is standard error (RFC 4254, 5.2).
const STDERR: u32 = 1;
/// Bytes read at a time. Less than an SSH packet (32 KiB), so that each read is sent as one packet.
const BUFFER: usize = 16 * 1024;
/// The exit status with which shells report a program that cannot be started.
const NOT_FOUND: u32 = 127;

/// The environment that every command on the machine gets.
pub(crate) struct CommandEnvironment {
    root: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl CommandEnvironment {
    pub(crate) fn new(dir: &MachineDir, info: &MachineInfo) -> Self {
        let root = dir.root();
        let variables = vec![
            ("PATH", format!("{}:{STANDARD_PATH}", dir.path().join("bin").display())),
            ("HOME", root.display().to_string()),
            ("SHELL", "/bin/sh".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            (ID_VARIABLE, info.id.clone()),
            ("BERTH_MACHINE_ADDRESS", info.address.clone()),
            ("BERTH_BOOT_ID", info.boot_id.clone()),
            // The host's systemd must not run this machine's services.
            ("BERTH_SERVICES", "portable".to_owned()),
        ];
        Self { root, variables }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// `sh -c SCRIPT` in the machine's home, in its own process group.
    pub(crate) fn command(&self, script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.root).process_group(0);
        command
    }
}

/// Runs `script` for the client of `channel`. When the client disconnects (`gone`) the command goes on, as with OpenSSH: it only
/// sees that its standard input has ended, and that nobody reads its output.
pub(crate) async fn run(
    environment: Arc<CommandEnvironment>,
    script: String,
    channel: Channel<Msg>,
    handle: Handle,
    gone: CancellationToken,
) {
    let id = channel.id();
    let (mut read, write) = channel.split();
    let mut command = environment.command(&script);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            let _ = write.extended_data_bytes(STDERR, format!("cannot start /bin/sh: {error}\n")).await;
            let _ = write.exit_status(NOT_FOUND).await;
            let _ = write.close().await;
            return;
        }
    };
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let signal = |signal| {
        if let Some(group) = group {
            // The group may have ended already.
            let _ = kill_process_group(group, signal);
        }
    };
    let mut stdin = child.stdin.take();
    let input = async {
        while let Some(message) = read.wait().await {
            match message {
                ChannelMsg::Data { data } => write_stdin(&mut stdin, &data).await,
                ChannelMsg::Eof => stdin = None,
                ChannelMsg::Signal { signal: name } => {
                    if let Some(known) = known_signal(&name) {
                        signal(known);
                    }
                }
                ChannelMsg::Close => break,
                _ => {}
            }
        }
    };
    let ended = tokio::select! {
        ended = wait(&mut child, &write) => ended,
        () = gone.cancelled() => None,
        () = input => None,
    };
    match ended {
        Some(status) => report(status, id, &write, &handle).await,
        None => {
            drop(stdin);
            // Collects the exit status, so that no zombie remains.
            tokio::spawn(async move { child.wait().await });
        }
    }
}

/// Writes to the command's standard input. What the command does not read is dropped, and that is not an error.
async fn write_stdin(stdin: &mut Option<ChildStdin>, data: &[u8]) {
    if let Some(pipe) = stdin.as_mut()
        && pipe.write_all(data).await.is_err()
    {
        *stdin = None;
    }
}

/// Forwards all output and waits for the command's end.
async fn wait(child: &mut Child, write: &ChannelWriteHalf<Msg>) -> Option<ExitStatus> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    tokio::join!(forward(stdout, write, None), forward(stderr, write, Some(STDERR)));
    child.wait().await.ok()
}

/// Forwards an output stream of the command to the client.
async fn forward(source: Option<impl AsyncRead + Unpin>, write: &ChannelWriteHalf<Msg>, ext: Option<u32>) {
    let Some(mut source) = source else { return };
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = source.read(&mut buffer).await {
        let data = buffer[..length].to_vec();
        let sent = match ext {
            None => write.data_bytes(data).await,
            Some(ext) => write.extended_data_bytes(ext, data).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Reports the exit status or signal to the client and closes the channel.
async fn report(status: ExitStatus, id: russh::ChannelId, write: &ChannelWriteHalf<Msg>, handle: &Handle) {
    let core = status.core_dumped();
    if let Some(signal) = status.signal() {
        let _ = handle.exit_signal_request(id, signal_name(signal), core, String::new(), String::new()).await;
    } else {
        let number = u32::try_from(status.code().unwrap_or(255)).unwrap_or(255);
        let _ = write.exit_status(number).await;
    }
    let _ = write.eof().await;
    let _ = write.close().await;
}

fn known_signal(name: &Sig) -> Option<Signal> {
    match name {
        Sig::HUP => Some(Signal::HUP),
        Sig::INT => Some(Signal::INT),
        Sig::QUIT => Some(Signal::QUIT),
        Sig::KILL => Some(Signal::KILL),
        Sig::TERM => Some(Signal::TERM),
        Sig::USR1 => Some(Signal::USR1),
        _ => None,
    }
}

/// The names in RFC 4254, 6.10 of Linux's signal numbers.
fn signal_name(number: i32) -> Sig {
    match number {
        1 => Sig::HUP,
        2 => Sig::INT,
        3 => Sig::QUIT,
        4 => Sig::ILL,
        6 => Sig::ABRT,
        8 => Sig::FPE,
        9 => Sig::KILL,
        10 => Sig::USR1,
        11 => Sig::SEGV,
        13 => Sig::PIPE,
        14 => Sig::ALRM,
        15 => Sig::TERM,
        other => Sig::Custom(format!("{other}@linux")),
    }
}
