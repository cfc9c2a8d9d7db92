//! Runs one command in one SSH session.

use bytes::Bytes;
use russh::{Channel, ChannelMsg, ChannelReadHalf, client::Msg};

use crate::{
    error::{MachineError, Result},
    machine::{Output, Tail},
    shell::quote,
};

/// The type of extended data that is standard error (RFC 4254, 5.2).
const STDERR: u32 = 1;
/// Shells add a signal's number to this for the exit status of a command that it ended.
const SIGNAL_STATUS: u32 = 128;

/// Reads a number from standard input, then that many bytes, and runs these as a shell script.
const READ_SCRIPT: &str = r#"read -r length && eval "$(head -c "$length")""#;
/// Runs its first argument as the leader of a process group. A command of OpenSSH is one already, and `setsid` would let it run
/// in the background; one of Dropbear is in the group of the connection's own process.
const LEAD: &str = r#"read -r _ _ _ _ group _ </proc/$$/stat; [ "$group" = $$ ] || exec setsid sh -c "$1"; eval "$1""#;

/// Runs `script` with `sh` in `channel`, after the assignments in `parameters`, and waits for its end. Its standard input stays
/// open until then.
pub(super) async fn run(
    channel: Channel<Msg>,
    address: &str,
    script: &str,
    parameters: Option<Bytes>,
) -> Result<Output> {
    let broken =
        |error: russh::Error| MachineError::ConnectionLost { address: address.to_owned(), reason: error.to_string() };
    // The login shell may be any shell: it only has to understand single quotes.
    channel.exec(true, format!("exec sh -c {} sh {}", quote(LEAD), quote(READ_SCRIPT))).await.map_err(broken)?;
    let (mut read, write) = channel.split();
    // Both directions at the same time: otherwise a command that writes much before it reads would block forever. A
    // command that does not read its input closes the channel while we write, which is not a failure of the command.
    let send = async {
        let _ = write.data_bytes(with_length(&parameters.unwrap_or_default(), script)).await;
    };
    let collect = collect(&mut read, address);
    tokio::pin!(collect, send);
    tokio::select! {
        biased;
        output = &mut collect => output,
        () = &mut send => collect.await,
    }
}

/// What [`READ_SCRIPT`] reads.
fn with_length(parameters: &[u8], script: &str) -> Bytes {
    let length = parameters.len() + script.len();
    [format!("{length}\n").as_bytes(), parameters, script.as_bytes()].concat().into()
}

async fn collect(read: &mut ChannelReadHalf, address: &str) -> Result<Output> {
    let (mut stdout, mut stderr) = (Tail::default(), Tail::default());
    let mut end = None;
    while let Some(message) = read.wait().await {
        match message {
            ChannelMsg::Data { data } => stdout.push(&data),
            ChannelMsg::ExtendedData { data, ext: STDERR } => stderr.push(&data),
            ChannelMsg::ExitStatus { exit_status } => end = Some((exit_status, None)),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                let name = name_of(&signal_name);
                end = Some((SIGNAL_STATUS + signal_number(&name), Some(name)));
            }
            ChannelMsg::Failure => {
                let reason = "the server refused to run a command".to_owned();
                return Err(MachineError::Ssh { address: address.to_owned(), reason });
            }
            _ => {}
        }
    }
    let Some((status, signal)) = end else {
        let reason = "it ended before the command's exit status arrived".to_owned();
        return Err(MachineError::ConnectionLost { address: address.to_owned(), reason });
    };
    let ((stdout, cut_out), (stderr, cut_err)) = (stdout.finish(), stderr.finish());
    Ok(Output { status, signal, stdout, stderr, truncated: cut_out || cut_err })
}

fn name_of(signal: &russh::Sig) -> String {
    match signal {
        russh::Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}

/// Linux's numbers of the signals that SSH names (RFC 4254, 6.10); 0 for others.
fn signal_number(name: &str) -> u32 {
    match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "ABRT" => 6,
        "FPE" => 8,
        "KILL" => 9,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        _ => 0,
    }
}
