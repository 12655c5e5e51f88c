//! A proxy between a client and Firestore. It records requests, can answer, delay or keep them, and
//! can lose replies.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use syncguard_firestore::gcloud_sdk::google::firestore::v1::CommitRequest;
use syncguard_firestore::gcloud_sdk::prost::Message;
use syncguard_firestore::gcloud_sdk::tonic::body::Body;
use syncguard_firestore::gcloud_sdk::tonic::codegen::{Body as _, BoxFuture, Service, http};
use syncguard_firestore::gcloud_sdk::tonic::server::NamedService;
use syncguard_firestore::gcloud_sdk::tonic::transport::server::TcpIncoming;
use syncguard_firestore::gcloud_sdk::tonic::transport::{Channel, Endpoint, Server};
use syncguard_firestore::gcloud_sdk::tonic::{Code, Status};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;

use super::overheard::Overheard;

/// A refusal quotes a document, as those of Firestore do.
pub(super) const QUOTE: &str = "no entity to update: documents/locks/quoted-key";

/// The methods of requests.
pub(super) const READ: &str = "BatchGetDocuments";
pub(super) const QUERY: &str = "RunQuery";
pub(super) const COMMIT: &str = "Commit";
pub(super) const LISTEN: &str = "Listen";

/// How the proxy treats a request.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// Forwards the request and its reply.
    Pass,
    /// Answers with this code. The request never reaches the server.
    Refuse(Code),
    /// Forwards the request, but answers with this code instead of the reply.
    Lose(Code),
    /// Forwards the request after a notification.
    Wait(Arc<Notify>),
    /// Forwards the request after this time.
    Delay(Duration),
    /// Never answers.
    Hang,
    /// Never answers a commit, and gives it to the trial, which can send it later.
    Keep(UnboundedSender<CommitRequest>),
}

/// The proxy. Dropping it stops it and cuts its connections.
pub(super) struct Proxy {
    server: Endpoint,
    socket: TcpListener,
    requests: Arc<Mutex<Requests>>,
    /// The messages on its Listen streams.
    pub(super) overheard: Overheard,
    /// A runtime of its own, because the tasks that serve connections end only with their runtime.
    runtime: Option<Runtime>,
}

struct Requests {
    seen: Vec<String>,
    limits: Vec<Duration>,
    judge: Box<dyn FnMut(&str) -> Verdict + Send>,
}

impl Proxy {
    pub(super) fn before(server: &str) -> Self {
        let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let requests =
            Requests { seen: Vec::new(), limits: Vec::new(), judge: Box::new(|_| Verdict::Pass) };
        let mut proxy = Self {
            server: Endpoint::new(format!("http://{server}")).unwrap(),
            socket,
            requests: Arc::new(Mutex::new(requests)),
            overheard: Overheard::default(),
            runtime: None,
        };
        proxy.cut();
        proxy
    }

    /// Cuts all connections. New ones are accepted at once.
    pub(super) fn cut(&mut self) {
        self.stop();
        let runtime = Runtime::new().unwrap();
        let _inside = runtime.enter();
        let socket = tokio::net::TcpListener::from_std(self.socket.try_clone().unwrap()).unwrap();
        let passage = Passage {
            server: self.server.connect_lazy(),
            requests: self.requests.clone(),
            overheard: self.overheard.clone(),
        };
        let serving = Server::builder().add_service(passage);
        let incoming = TcpIncoming::from(socket).with_nodelay(Some(true));
        runtime.spawn(serving.serve_with_incoming(incoming));
        self.runtime = Some(runtime);
    }

    fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropping a runtime inside another one panics, but this does not.
            runtime.shutdown_background();
        }
    }

    pub(super) fn address(&self) -> String {
        self.socket.local_addr().unwrap().to_string()
    }

    /// Sets the function that decides about each request by its method.
    pub(super) fn judge(&self, judge: impl FnMut(&str) -> Verdict + Send + 'static) {
        self.requests.lock().unwrap().judge = Box::new(judge);
    }

    /// Decides about the next requests of one method. All others pass.
    pub(super) fn judge_next<const N: usize>(&self, method: &'static str, verdicts: [Verdict; N]) {
        let mut verdicts = verdicts.into_iter();
        self.judge(move |seen| {
            let verdict = if seen == method { verdicts.next() } else { None };
            verdict.unwrap_or(Verdict::Pass)
        });
    }

    /// Returns the methods of the requests since the last call.
    pub(super) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap().seen)
    }

    /// Returns the timeouts of the requests since the last call.
    pub(super) fn limits(&self) -> Vec<Duration> {
        std::mem::take(&mut self.requests.lock().unwrap().limits)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Clone)]
struct Passage {
    server: Channel,
    requests: Arc<Mutex<Requests>>,
    overheard: Overheard,
}

impl NamedService for Passage {
    const NAME: &'static str = "google.firestore.v1.Firestore";
}

impl Service<http::Request<Body>> for Passage {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let verdict = {
            let mut requests = self.requests.lock().unwrap();
            let verdict = (requests.judge)(&method);
            requests.seen.push(method.clone());
            requests.limits.extend(limit(&request));
            verdict
        };
        let (mut server, overheard) = (self.server.clone(), self.overheard.clone());
        Box::pin(async move {
            let mut pass = async |request| {
                poll_fn(|context| server.poll_ready(context)).await?;
                match method.as_str() {
                    LISTEN => overheard.pass(request, |request| server.call(request)).await,
                    _ => server.call(request).await,
                }
            };
            Ok(match verdict {
                Verdict::Pass => pass(request)
                    .await
                    .unwrap_or_else(|error| Status::from_error(error.into()).into_http()),
                Verdict::Refuse(code) => Status::new(code, QUOTE).into_http(),
                Verdict::Lose(code) => {
                    pass(request).await.unwrap();
                    Status::new(code, "").into_http()
                }
                Verdict::Wait(go) => {
                    go.notified().await;
                    pass(request).await.unwrap()
                }
                Verdict::Delay(by) => {
                    sleep(by).await;
                    pass(request).await.unwrap()
                }
                Verdict::Hang => pending().await,
                Verdict::Keep(keeper) => {
                    keeper.send(commit(request).await).unwrap();
                    pending().await
                }
            })
        })
    }
}

/// Returns the timeout that the client sent with a request.
fn limit(request: &http::Request<Body>) -> Option<Duration> {
    let text = request.headers().get("grpc-timeout")?.to_str().unwrap();
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u32 = number.parse().unwrap();
    Some(
        match unit {
            "n" => Duration::from_nanos(1),
            "u" => Duration::from_micros(1),
            "m" => Duration::from_millis(1),
            "S" => Duration::from_secs(1),
            other => panic!("unexpected unit of a timeout: {other}"),
        } * number,
    )
}

async fn commit(request: http::Request<Body>) -> CommitRequest {
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame.unwrap().into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    // In gRPC, five bytes precede the message: the compression flag and the length.
    CommitRequest::decode(&bytes[5..]).unwrap()
}
