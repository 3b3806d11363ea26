//! The control plane's server: sessions of workers and the bytes of modules.
//!
//! A session is one stream in each direction. What arrives is passed on to the job concerned in
//! order; what leaves goes through a bounded queue, and a worker that lets it fill up is given up.

mod convert;
mod session;

use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
use futures::{Stream, StreamExt as _};
use tidemill_protocol::control::{
    CoordinatorMessage, ModuleChunk, ModuleRequest, WorkerMessage, coordinator_server,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{cluster::Cluster, error::CoordinatorError};

/// Messages that may wait for a worker. A message of a job with much inline state may have
/// megabytes, most have some bytes.
const OUTBOX_MESSAGES_MAX: usize = 1_024;
/// The largest message: state that travels inline in deployments and acknowledgements.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// The bytes of a module in one message.
const CHUNK_BYTES: usize = 256 << 10;

/// The service behind the RPC port.
struct RpcService {
    cluster: Arc<Cluster>,
}

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl coordinator_server::Coordinator for RpcService {
    type OpenSessionStream = ReceiverStream<Result<CoordinatorMessage, Status>>;
    type FetchModuleStream = Outgoing<ModuleChunk>;

    async fn open_session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::OpenSessionStream>, Status> {
        let (outbox, outgoing) = mpsc::channel(OUTBOX_MESSAGES_MAX);
        let cluster = Arc::clone(&self.cluster);
        self.cluster
            .tasks
            .spawn(session::run(cluster, request.into_inner(), outbox));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn fetch_module(
        &self,
        request: Request<ModuleRequest>,
    ) -> Result<Response<Self::FetchModuleStream>, Status> {
        let hash = request.into_inner().module_hash;
        let Some(path) = self.cluster.blobs.find(&hash) else {
            let hash: String = hash.chars().take(64).collect();
            return Err(Status::not_found(format!("no job runs module {hash}")));
        };
        let file = tokio::fs::File::open(&path)
            .await
            .map_err(|e| Status::unavailable(format!("cannot read the module: {e}")))?;
        let chunks = ReaderStream::with_capacity(file, CHUNK_BYTES).map(|chunk| match chunk {
            Ok(data) => Ok(ModuleChunk { data }),
            Err(e) => Err(Status::unavailable(format!("cannot read the module: {e}"))),
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}

/// Serves workers until the cluster shuts down.
pub(crate) async fn serve(
    cluster: Arc<Cluster>,
    listener: TcpListener,
) -> Result<(), CoordinatorError> {
    let shutdown = cluster.shutdown.clone();
    let service = coordinator_server::CoordinatorServer::new(RpcService { cluster })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let incoming = TcpListenerStream::new(listener).map(|connection| {
        connection.inspect(|socket| {
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "a worker's connection cannot be set to no-delay");
            }
        })
    });
    tonic::transport::Server::builder()
        .serve_with_incoming_shutdown(service, incoming, shutdown.cancelled_owned())
        .await
        .map_err(|error| CoordinatorError::Serve {
            what: "the RPC port",
            error: error.to_string(),
        })
}
