//! The agent's local API as a server: a unix socket that only this user can
//! open, and a TCP listener with a token if a setting says so.
//!
//! Owns the listeners and the state that `/health` tells; what is answered is `inspect`'s.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use subtle::ConstantTimeEq;

use crate::agent::files::Files;
use crate::agent::inspect::api::{self, Own};
use crate::agent::inspect::observer::Place;
use crate::agent::inspect::{Gateway, Observer};
use crate::api_client::ApiClient;
use crate::config::AgentConfig;
use crate::http::{self, ApiError, Listener, Reply, Request, Routes, Server};
use crate::process::Process;
use crate::shutdown::{Shutdown, Tasks};

/// The longest path a unix socket may have, in bytes, with a margin for its end.
const SOCKET_PATH_BYTES_MAX: usize = 100;
/// How long requests may take once the agent ends.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// How often workers and gateway are looked at for what only grows with time:
/// counters that a worker takes with it, rates, reconnects.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

pub struct LocalApi {
    servers: Vec<Server>,
    tasks: Tasks,
    state: Arc<Mutex<&'static str>>,
    socket: PathBuf,
    url_file: PathBuf,
}

struct Served {
    observer: Arc<Observer>,
    agent: String,
    state: Arc<Mutex<&'static str>>,
    pids: PathBuf,
    /// What a request must show; the socket's own permissions are enough there.
    token: Option<String>,
}

// === impl LocalApi ===

impl LocalApi {
    /// Binds and serves, in state `starting`.
    pub fn start(
        config: &AgentConfig,
        files: &Files,
        agent: &str,
        amqp_url: &str,
    ) -> anyhow::Result<Self> {
        let client = ApiClient::new(&config.endpoint, &config.egress);
        let gateway = client
            .map(|client| Gateway::new(client, &config.pool_id, &config.pool_token))
            .map_err(|error| error.to_string());
        let observer = Observer::new(Place {
            amqp_url: amqp_url.to_owned(),
            pool: config.pool_id.clone(),
            gateway,
            data_dir: config.data_dir.clone(),
            client: format!("{}/agent", std::process::id()),
        });
        let state = Arc::new(Mutex::new("starting"));
        let served = |token| Served {
            observer: observer.clone(),
            agent: agent.to_owned(),
            state: state.clone(),
            pids: files.path("pids"),
            token,
        };
        let dir = std::path::absolute(files.dir())?;
        let socket = place_of(&dir, &config.user_runtime_dir, agent);
        let listener = bind(&socket)?;
        let mut servers = vec![http::serve(served(None), Listener::Unix(listener))];
        if let Some((listen, token)) = &config.api {
            let listener = std::net::TcpListener::bind(listen)
                .with_context(|| format!("SLUICE_AGENT_API_LISTEN: listen on {listen}"))?;
            tracing::info!(address = %listener.local_addr()?, "The local API listens, and asks for its token");
            servers.push(http::serve(
                served(Some(token.clone())),
                Listener::Tcp(listener),
            ));
        }
        files.write("api-url", &format!("unix://{}", socket.display()))?;
        // Its own: the API looks on while everything else ends.
        let tasks = Tasks::new("agent", Shutdown::new());
        tasks.spawn("observer", observer.clone().keep());
        tasks.spawn("samples", sample(observer));
        Ok(Self {
            servers,
            tasks,
            state,
            socket,
            url_file: files.path("api-url"),
        })
    }

    /// Says where the agent stands: `starting`, `running` or `draining`.
    pub fn enter(&self, state: &'static str) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Takes no more requests, and takes the socket away.
    pub async fn stop(self) {
        // Who finds no address is told that no agent runs, which is so.
        drop(std::fs::remove_file(&self.url_file));
        for server in self.servers {
            server.drain(DRAIN_MAX).await;
        }
        // The server has taken it away, unless it was cut off in a request.
        drop(std::fs::remove_file(&self.socket));
        self.tasks.abort().await;
    }
}

/// `DATA/agent/agent.sock`, or a shorter path for the same agent.
fn place_of(dir: &Path, user_runtime_dir: &Path, agent: &str) -> PathBuf {
    let own = dir.join("agent.sock");
    if own.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return own;
    }
    user_runtime_dir.join(format!("sluice-api-{agent}.sock"))
}

fn bind(socket: &Path) -> anyhow::Result<UnixListener> {
    // The agent's lock is held, so whoever has left this one is gone.
    drop(std::fs::remove_file(socket));
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn sample(observer: Arc<Observer>) {
    loop {
        async_std::task::sleep(SAMPLE_EVERY).await;
        // What cannot be asked now is asked again; whoever looks is told.
        let _ = observer.summary().await;
        let _ = observer.ask().await;
    }
}

// === impl Served ===

impl Routes for Served {
    const BODY_BYTES_MAX: u64 = api::BODY_BYTES_MAX;

    fn route<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<Reply, ApiError>> {
        self.answer(request).boxed()
    }
}

impl Served {
    async fn answer(&self, mut request: Request<'_>) -> Result<Reply, ApiError> {
        if let Some(token) = &self.token {
            let shown = request.head.bearer.as_deref().unwrap_or_default();
            if !bool::from(shown.as_bytes().ct_eq(token.as_bytes())) {
                let sentence = "send `Authorization: Bearer …` with SLUICE_AGENT_API_TOKEN";
                return Err(ApiError::new(401, sentence));
            }
        }
        let body = request.body(api::BODY_BYTES_MAX).await?;
        let own = Own {
            agent: self.agent.clone(),
            state: Some((*self.state.lock().unwrap_or_else(PoisonError::into_inner)).to_owned()),
            processes: processes(&self.pids),
        };
        api::handle(&self.observer, &own, request.head, &body).await
    }
}

/// The agent's children, and whether each runs.
fn processes(pids: &Path) -> Vec<(String, bool)> {
    let entries = std::fs::read_dir(pids).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| {
            let runs = Process::recorded(&entry.path()).is_some();
            (entry.file_name().to_string_lossy().into_owned(), runs)
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_fits_no_socket_is_made_shorter() {
        let short = place_of(Path::new("/data/agent"), Path::new("/run/user/1"), "id");
        assert_eq!(short, Path::new("/data/agent/agent.sock"));
        let long = PathBuf::from("/").join("x".repeat(SOCKET_PATH_BYTES_MAX));
        let other = place_of(&long, Path::new("/run/user/1"), "id");
        assert_eq!(other, Path::new("/run/user/1/sluice-api-id.sock"));
    }

    #[test]
    fn only_this_user_can_open_the_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("agent.sock");
        drop(bind(&socket).expect("bound"));
        let _again = bind(&socket).expect("one that was left is replaced");
        let mode = std::fs::metadata(&socket)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
