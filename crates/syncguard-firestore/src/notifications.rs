//! Notifies waiters of released locks, by listening to the lock documents.

mod targets;

use std::sync::Arc;

use gcloud_sdk::RequestTimeouts;
use gcloud_sdk::google::firestore::v1::{ListenRequest, ListenResponse};
use gcloud_sdk::tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use gcloud_sdk::tonic::{Request, Status, Streaming};
use syncguard_backend::{ListenerTask, NotificationRegistry, Notified, ReconnectBackoff};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use crate::connection::Link;
use crate::error::Failure;
use crate::operations::Store;
use targets::Targets;

/// The waiters, and the task that listens for them.
pub(crate) struct Listener {
    store: Arc<Store>,
    interests: NotificationRegistry,
    task: ListenerTask,
}

impl Listener {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, interests: NotificationRegistry::new(), task: ListenerTask::new() }
    }

    /// Resolves when a lock document may have been deleted after this call.
    pub(crate) fn notification(&self, document: &str) -> Notified {
        let notification = self.interests.register(document);
        self.task.ensure_running(|| keep_listening(self.store.clone(), self.interests.clone()));
        notification
    }
}

/// Keeps a stream open while somebody waits.
///
/// The stream stays open without targets when nobody waits any more, because that costs nothing, and
/// waiters come and go too often to close it each time. If it ends then, the next waiter opens another.
async fn keep_listening(store: Arc<Store>, interests: NotificationRegistry) {
    let mut outage = ReconnectBackoff::new();
    loop {
        interests.wait_until_registered().await;
        let mut targets = Targets::new(&store.names.database);
        let Err(status) = listen(&store, &interests, &mut targets).await else {
            continue;
        };
        if outage.session_ended(targets.worked_for()) {
            // The status itself may quote document names.
            tracing::warn!(
                code = ?status.code(),
                "cannot keep listening to Firestore for locks that are released: those who wait try \
                 again by timer until it works"
            );
        }
        // The next one wakes all who wait, when their targets are in place again.
        interests.pause(outage.pause()).await;
    }
}

/// Listens on one stream until it ends, unless those who waited have gone: on a stream that asks for
/// nothing, the server says nothing, not even that it is open.
async fn listen(
    store: &Store,
    interests: &NotificationRegistry,
    targets: &mut Targets,
) -> Result<(), Status> {
    let wanted = interests.registered();
    if wanted.is_empty() {
        return Ok(());
    }
    // What is sent here is little, and goes out at once: no need to bound it.
    let (requests, outgoing) = unbounded_channel();
    let send = |request: Option<ListenRequest>| {
        if let Some(request) = request {
            // A stream that has ended says so itself.
            let _ = requests.send(request);
        }
    };
    for document in wanted {
        send(targets.add(document));
    }
    let Ok(link) = store.connection.link().await else {
        return Err(Status::unavailable("no connection"));
    };
    let (mut replies, first) = open(store, &link, outgoing).await?;
    targets.hear(first, |document| interests.wake(document))?;
    loop {
        tokio::select! {
            // The stream may be as silent as the connection.
            () = link.condemned() => return Err(Status::unavailable("the connection is replaced")),
            changes = interests.changes() => {
                for document in changes {
                    if interests.is_registered(&document) {
                        send(targets.add(document));
                    } else {
                        send(targets.remove(&document));
                    }
                }
            }
            reply = next(&mut replies) => {
                targets.hear(reply?, |document| interests.wake(document))?;
            }
        }
    }
}

/// Opens a stream, and waits until the server has answered on it.
///
/// The client names the database in a header of every request. Without it, Firestore refuses this one.
async fn open(
    store: &Store,
    link: &Arc<Link>,
    outgoing: UnboundedReceiver<ListenRequest>,
) -> Result<(Streaming<ListenResponse>, ListenResponse), Status> {
    let mut request = Request::new(UnboundedReceiverStream::new(outgoing));
    // A timeout of the client would end the stream, however well it works.
    request.extensions_mut().insert(RequestTimeouts::new());
    let mut exchange = link.begin(Instant::now() + store.command_timeout);
    let mut api = exchange.api();
    let opening = async {
        let mut replies = api.listen(request).await?.into_inner();
        let first = next(&mut replies).await?;
        Ok((replies, first))
    };
    match exchange.answer(opening).await {
        Ok(Some(opened)) => Ok(opened),
        Ok(None) => Err(Status::deadline_exceeded("no answer in time")),
        Err(Failure::Status(status)) => Err(status),
        Err(Failure::Incomplete) => Err(Status::unavailable("the reply was cut short")),
    }
}

async fn next(replies: &mut Streaming<ListenResponse>) -> Result<ListenResponse, Status> {
    replies.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::FirestoreBackend;

    /// A backend that is connected to a server which never says anything.
    async fn before_silence() -> (FirestoreBackend, TcpListener) {
        let silence = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silence.local_addr().unwrap().to_string();
        let builder = FirestoreBackend::builder().emulator(address).notifications(true);
        (builder.connect("p").await.unwrap(), silence)
    }

    /// A waiter may be gone before the listener asks for its key.
    #[tokio::test]
    async fn w_no_stream_is_opened_for_nobody() {
        let (backend, _silence) = before_silence().await;
        let listener = backend.listener.as_ref().unwrap();
        let mut targets = Targets::new(&listener.store.names.database);
        let listening = pin!(listen(&listener.store, &listener.interests, &mut targets));
        let polled = listening.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Ok(()))));
    }
}
