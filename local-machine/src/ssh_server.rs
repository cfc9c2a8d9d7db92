//! The machine's SSH server. It offers public key authentication and commands, nothing else.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use russh::{
    Channel, ChannelId, MethodKind, MethodSet,
    keys::{PrivateKey, PublicKey},
    server::{
        self, Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Server as _, Session, VerifiedPublicKey,
    },
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::command::{self, CommandEnvironment};

/// How often a silent client is asked for a sign of life, so that the commands of one that crashed notice it.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Serves until the listener fails.
pub(crate) async fn serve(
    key: PrivateKey,
    authorized: Vec<PublicKey>,
    environment: Arc<CommandEnvironment>,
    listener: &TcpListener,
) -> Result<()> {
    let config = Config {
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // Short: on a loopback address there is no password guessing to slow down.
        auth_rejection_time: Duration::from_millis(100),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key],
        keepalive_interval: Some(KEEPALIVE),
        nodelay: true,
        ..Config::default()
    };
    let mut server = SshServer { authorized: authorized.into(), environment };
    server.run_on_socket(Arc::new(config), listener).await.context("the SSH server ended")
}

struct SshServer {
    authorized: Arc<[PublicKey]>,
    environment: Arc<CommandEnvironment>,
}

impl server::Server for SshServer {
    type Handler = ClientConnection;

    fn new_client(&mut self, _: Option<SocketAddr>) -> ClientConnection {
        let gone = CancellationToken::new();
        ClientConnection {
            authorized: Arc::clone(&self.authorized),
            environment: Arc::clone(&self.environment),
            _cancels_gone: gone.clone().drop_guard(),
            gone,
            waiting: HashMap::new(),
            running: HashMap::new(),
        }
    }

    fn handle_session_error(&mut self, error: russh::Error) {
        tracing::debug!(%error, "a connection ended");
    }
}

/// One client's connection. It is dropped when the client disconnects, and then the client's commands lose their input and output.
struct ClientConnection {
    authorized: Arc<[PublicKey]>,
    environment: Arc<CommandEnvironment>,
    gone: CancellationToken,
    _cancels_gone: DropGuard,
    /// Channels that have not asked for a command yet.
    waiting: HashMap<ChannelId, Channel<Msg>>,
    /// Cancels the command of each channel.
    running: HashMap<ChannelId, CancellationToken>,
}

impl ClientConnection {
    fn authenticate(&self, key: &PublicKey) -> Auth {
        let known = self.authorized.iter().any(|authorized| authorized.key_data() == key.key_data());
        if known { Auth::Accept } else { Auth::reject() }
    }
}

impl Handler for ClientConnection {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, _: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        Ok(self.authenticate(offer.public_key))
    }

    async fn auth_publickey(&mut self, _: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.authenticate(key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.waiting.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        let (Some(channel), Ok(script)) = (self.waiting.remove(&id), std::str::from_utf8(data)) else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let gone = self.gone.child_token();
        self.running.insert(id, gone.clone());
        let environment = Arc::clone(&self.environment);
        tokio::spawn(command::run(environment, script.to_owned(), channel, session.handle(), gone));
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.waiting.remove(&id);
        if let Some(gone) = self.running.remove(&id) {
            gone.cancel();
        }
        Ok(())
    }
}
