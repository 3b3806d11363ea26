//! A worker's data plane: its listener, its connections, and the ends of channels.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use tidemill_protocol::frame::{Frame, HANDSHAKE_BYTES_MAX, Hello};
use tidemill_types::{Attempt, JobId};
use tokio::{
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Handle,
    sync::Semaphore,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    ChannelId, ChannelSender, ExchangeConfig, ExchangeError, InputGate,
    connection::{ConnectionError, FrameReader, write_frame},
    credit::Window,
    inbound::Inbound,
    outbound::Outbound,
    registry::{Registry, Waiting},
    sender::Link,
};

/// How often senders that wait for a receiver are looked through.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a peer may take to read why its connection is closed.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long [`ExchangeService::shutdown`] waits for what is queued to be written.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(6);
/// Pause after a failed accept: the process has probably run out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What other workers know this one by.
#[derive(Debug, Clone)]
struct Identity {
    worker: String,
    data_address: String,
}

#[derive(Debug)]
struct Shared {
    config: ExchangeConfig,
    local_address: SocketAddr,
    identity: OnceLock<Identity>,
    registry: Arc<Registry>,
    outbound: Mutex<HashMap<String, Arc<Outbound>>>,
    /// Tasks that write records: a shutdown waits for them.
    senders: TaskTracker,
    tasks: TaskTracker,
    inbound_permits: Arc<Semaphore>,
    stop: CancellationToken,
    runtime: Handle,
}

/// The data plane of a worker. Clones are handles to the same; the last one to go stops it.
#[derive(Debug, Clone)]
pub struct ExchangeService {
    shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

impl ExchangeService {
    /// Listens at `listen` with the default settings, on the current runtime.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened at.
    pub async fn bind(listen: &str) -> io::Result<Self> {
        Self::bind_with(listen, ExchangeConfig::default()).await
    }

    /// Listens at `listen` and serves other workers on the current runtime.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened at.
    pub async fn bind_with(listen: &str, config: ExchangeConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let local_address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            registry: Arc::new(Registry::new(config.open_timeout)),
            inbound_permits: Arc::new(Semaphore::new(config.connections_max)),
            config,
            local_address,
            identity: OnceLock::new(),
            outbound: Mutex::default(),
            senders: TaskTracker::new(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
            runtime: Handle::current(),
        });
        shared.spawn(accept(Arc::clone(&shared), listener));
        shared.spawn(expire(Arc::clone(&shared.registry)));
        Ok(Self {
            shared,
            _stop: Arc::new(stop.drop_guard()),
        })
    }

    /// The address that is listened at.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.shared.local_address
    }

    /// Says what other workers know this one by: its id and the address under which they reach it.
    /// Channels to that address stay within the process. Only the first call counts.
    pub fn introduce(&self, worker: &str, data_address: &str) {
        let identity = Identity {
            worker: worker.to_owned(),
            data_address: data_address.to_owned(),
        };
        self.shared.identity.get_or_init(|| identity);
    }

    /// The sending end of a channel to the worker at `target`, with at most `capacity_bytes` under
    /// way (or what the receiver allows, if that is less).
    ///
    /// Returns at once; the sender waits for its receiver when it is used.
    #[must_use]
    pub fn sender(&self, id: ChannelId, target: &str, capacity_bytes: usize) -> ChannelSender {
        let window = Arc::new(Window::new(capacity_bytes));
        let registry = &self.shared.registry;
        let link = if !registry.add_sender(id, &window) {
            drop(window.close(ExchangeError::Released { channel: id }));
            Link::None
        } else if self.is_here(target) {
            registry.connect(id, Waiting::Local(Arc::clone(&window)));
            Link::Local(Arc::clone(registry), None)
        } else {
            self.dialled(id, target, &window)
        };
        ChannelSender::new(id, window, link, registry.open_timeout())
    }

    /// The receiving ends of channels, as one gate with at most `capacity_bytes` under way on each.
    ///
    /// Senders are let in as soon as this is called: call it before anything that takes long, such
    /// as restoring state.
    #[must_use]
    pub fn receivers(&self, ids: Vec<ChannelId>, capacity_bytes: usize) -> InputGate {
        let gate = self.shared.registry.add_receivers(&ids, capacity_bytes);
        InputGate::new(gate, Arc::clone(&self.shared.registry), ids)
    }

    /// Ends every channel of this attempt of a job, and of older ones, and refuses them from now on.
    ///
    /// What senders have sent up to their end still leaves.
    pub fn release(&self, job: JobId, attempt: Attempt) {
        self.shared.registry.release(job, attempt);
    }

    /// Writes what is queued, within limits, and closes all connections.
    pub async fn shutdown(&self) {
        for outbound in self.shared.outbound.lock().values() {
            outbound.finish();
        }
        self.shared.senders.close();
        if timeout(SHUTDOWN_TIMEOUT, self.shared.senders.wait())
            .await
            .is_err()
        {
            tracing::warn!("connections to other workers did not close in time");
        }
        self.shared.stop.cancel();
        self.shared.senders.wait().await;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Whether `target` is this worker.
    fn is_here(&self, target: &str) -> bool {
        let local = self.shared.local_address;
        if self
            .shared
            .identity
            .get()
            .is_some_and(|identity| identity.data_address == target)
        {
            return true;
        }
        match target.parse::<SocketAddr>() {
            Ok(address) => address == local,
            // Whoever listens at this port of the loopback interface is this process.
            Err(_) => target
                .strip_prefix("localhost:")
                .is_some_and(|port| local.ip().is_loopback() && port.parse() == Ok(local.port())),
        }
    }

    /// A channel over the connection to `target`, which is made if there is none.
    fn dialled(&self, id: ChannelId, target: &str, window: &Arc<Window>) -> Link {
        let mut connections = self.shared.outbound.lock();
        if let Some(outbound) = connections.get(target)
            && let Some(channel) = outbound.open(id, window)
        {
            return Link::Remote(Arc::clone(outbound), channel);
        }
        let outbound = Arc::new(Outbound::new(target));
        connections.insert(target.to_owned(), Arc::clone(&outbound));
        drop(connections);
        let channel = outbound
            .open(id, window)
            .expect("a new connection has not failed");
        let task = run_outbound(Arc::clone(&self.shared), Arc::clone(&outbound));
        self.shared.senders.spawn_on(task, &self.shared.runtime);
        Link::Remote(outbound, channel)
    }
}

impl Shared {
    fn identity(&self) -> Identity {
        self.identity.get().cloned().unwrap_or_else(|| Identity {
            worker: "an unnamed worker".to_owned(),
            data_address: self.local_address.to_string(),
        })
    }

    fn hello(&self) -> Hello {
        let Identity {
            worker,
            data_address,
        } = self.identity();
        Hello {
            worker,
            address: data_address,
            token: self.config.token.clone(),
        }
    }

    /// Runs a task until it ends or the service stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let task = async move {
            stop.run_until_cancelled(task).await;
        };
        self.tasks.spawn_on(task, &self.runtime);
    }
}

async fn run_outbound(shared: Arc<Shared>, outbound: Arc<Outbound>) {
    let run = outbound.run(shared.hello(), shared.config.dial_timeout);
    let reason = shared
        .stop
        .run_until_cancelled(run)
        .await
        .unwrap_or(ConnectionError::Shutdown);
    tracing::debug!(target_address = outbound.target(), %reason, "connection ended");
    outbound.fail(&reason);
    let mut connections = shared.outbound.lock();
    if connections
        .get(outbound.target())
        .is_some_and(|it| Arc::ptr_eq(it, &outbound))
    {
        connections.remove(outbound.target());
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let Ok(permit) = Arc::clone(&shared.inbound_permits).try_acquire_owned() else {
                    tracing::warn!(%address, "too many connections to the data port");
                    continue;
                };
                let serving = Arc::clone(&shared);
                let task = async move {
                    serve_inbound(&serving, stream, address).await;
                    drop(permit);
                };
                shared.tasks.spawn_on(task, &shared.runtime);
            }
            Err(error) => {
                tracing::warn!(%error, "the data port does not accept connections");
                pause(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_inbound(shared: &Shared, stream: TcpStream, address: SocketAddr) {
    let (mut reader, mut writer) = stream.into_split();
    let reason = match shared
        .stop
        .run_until_cancelled(welcome(shared, &mut reader, &mut writer))
        .await
    {
        None => ConnectionError::Shutdown,
        Some(Err(reason)) => {
            tracing::warn!(%address, %reason, "a peer was not admitted to the data port");
            reason
        }
        Some(Ok((peer, frames))) => {
            let inbound = Arc::new(Inbound::new(peer.address.as_str().into()));
            let serve = inbound.serve(&mut reader, &mut writer, frames, &shared.registry);
            let reason = shared
                .stop
                .run_until_cancelled(serve)
                .await
                .unwrap_or(ConnectionError::Shutdown);
            inbound.fail(&reason, &shared.registry);
            tracing::debug!(worker = peer.worker, address = peer.address, %reason, "connection ended");
            reason
        }
    };
    if reason.is_worth_telling() {
        say_goodbye(&mut writer, &reason).await;
    }
}

/// Lets a peer introduce itself.
async fn welcome(
    shared: &Shared,
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
) -> Result<(Hello, FrameReader), ConnectionError> {
    let mut frames = FrameReader::new();
    let limit = shared.config.dial_timeout;
    let Ok(first) = timeout(limit, frames.next(reader, HANDSHAKE_BYTES_MAX)).await else {
        return Err(ConnectionError::Timeout(limit));
    };
    let Frame::Hello(hello) = first? else {
        return Err(ConnectionError::violation("it did not introduce itself"));
    };
    if !same_token(&hello.token, &shared.config.token) {
        return Err(ConnectionError::violation(
            "it does not know the token of this cluster",
        ));
    }
    writer.as_ref().set_nodelay(true)?;
    write_frame(
        writer,
        &Frame::Welcome {
            worker: shared.identity().worker,
        },
    )
    .await?;
    Ok((hello, frames))
}

/// Compares without telling by the time it takes how much is right.
fn same_token(offered: &[u8], expected: &[u8]) -> bool {
    offered.len() == expected.len()
        && offered
            .iter()
            .zip(expected)
            .fold(0, |differences, (a, b)| differences | (a ^ b))
            == 0
}

/// The connection ends in any case: whether the peer hears why is of no consequence here.
async fn say_goodbye(writer: &mut OwnedWriteHalf, reason: &ConnectionError) {
    let goodbye = Frame::Goodbye {
        reason: reason.to_string(),
    };
    if let Ok(Err(error)) = timeout(GOODBYE_TIMEOUT, write_frame(writer, &goodbye)).await {
        tracing::debug!(%error, "a peer did not hear why its connection was closed");
    }
}

async fn expire(registry: Arc<Registry>) {
    let mut ticks = interval(EXPIRE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        registry.expire(ticks.tick().await);
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge to the real network")]
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
