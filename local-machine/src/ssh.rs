//! The machine's SSH server: public keys only, commands only.

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

use crate::session::{self, Environment};

/// Serves until the listener fails.
pub(crate) async fn serve(
    key: PrivateKey,
    authorized: Vec<PublicKey>,
    environment: Arc<Environment>,
    listener: &TcpListener,
) -> Result<()> {
    let config = Config {
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::from_millis(100),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key],
        keepalive_interval: Some(Duration::from_secs(15)),
        nodelay: true,
        ..Config::default()
    };
    let mut server = Machine { authorized: authorized.into(), environment };
    server.run_on_socket(Arc::new(config), listener).await.context("the SSH server ended")
}

struct Machine {
    authorized: Arc<[PublicKey]>,
    environment: Arc<Environment>,
}

impl server::Server for Machine {
    type Handler = Connection;

    fn new_client(&mut self, _: Option<SocketAddr>) -> Connection {
        let open = CancellationToken::new();
        Connection {
            authorized: Arc::clone(&self.authorized),
            environment: Arc::clone(&self.environment),
            _end: open.clone().drop_guard(),
            open,
            waiting: HashMap::new(),
            running: HashMap::new(),
        }
    }

    fn handle_session_error(&mut self, error: russh::Error) {
        tracing::debug!(%error, "a connection ended");
    }
}

/// One client. When it is dropped, the client is gone and its commands end.
struct Connection {
    authorized: Arc<[PublicKey]>,
    environment: Arc<Environment>,
    open: CancellationToken,
    _end: DropGuard,
    waiting: HashMap<ChannelId, Channel<Msg>>,
    running: HashMap<ChannelId, CancellationToken>,
}

impl Connection {
    fn judge(&self, key: &PublicKey) -> Auth {
        let known = self.authorized.iter().any(|authorized| authorized.key_data() == key.key_data());
        if known { Auth::Accept } else { Auth::reject() }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, _: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        Ok(self.judge(offer.public_key))
    }

    async fn auth_publickey(&mut self, _: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.judge(key.public_key))
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
        let gone = self.open.child_token();
        self.running.insert(id, gone.clone());
        let environment = Arc::clone(&self.environment);
        tokio::spawn(session::run(environment, script.to_owned(), channel, session.handle(), gone));
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
