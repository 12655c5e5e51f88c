//! What is said on Listen streams.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard};

use http_body_util::BodyExt;
use syncguard_firestore::Key;
use syncguard_firestore::gcloud_sdk::google::firestore::v1::{
    ListenRequest, ListenResponse, listen_request::TargetChange, listen_response::ResponseType,
    target::TargetType, target_change::TargetChangeType,
};
use syncguard_firestore::gcloud_sdk::prost::Message;
use syncguard_firestore::gcloud_sdk::tonic::body::Body;
use syncguard_firestore::gcloud_sdk::tonic::codegen::http::{Request, Response};

/// Which documents are listened to through a proxy, as client and server agreed. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Overheard(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    opened: usize,
    open: BTreeSet<usize>,
    /// By stream and id.
    targets: BTreeMap<(usize, i32), Target>,
    changes: usize,
}

struct Target {
    document: String,
    current: bool,
}

impl Overheard {
    /// How many streams are open.
    pub(super) fn streams(&self) -> usize {
        self.state().open.len()
    }

    /// How many of these locks are listened to, as the server has confirmed.
    pub(super) fn listened<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) -> usize {
        let state = self.state();
        let is_current = |key: &&Key| {
            let path = format!("/locks/{}", key.as_str());
            state.targets.values().any(|target| target.current && target.document.ends_with(&path))
        };
        keys.into_iter().filter(is_current).count()
    }

    /// How many targets there are, confirmed or not.
    pub(super) fn targets(&self) -> usize {
        self.state().targets.len()
    }

    /// How many states of documents were told so far, other than that they are gone.
    pub(super) fn changes(&self) -> usize {
        self.state().changes
    }

    /// Listens in on a stream that passes through.
    pub(super) async fn pass<E>(
        &self,
        request: Request<Body>,
        call: impl AsyncFnOnce(Request<Body>) -> Result<Response<Body>, E>,
    ) -> Result<Response<Body>, E> {
        let stream = {
            let mut state = self.state();
            state.opened += 1;
            let stream = state.opened;
            state.open.insert(stream);
            stream
        };
        let ends = Ends { overheard: self.clone(), stream };
        let request = request.map(|body| {
            listen_in(body, move |message| ends.overheard.state().asked(ends.stream, message))
        });
        let response = call(request).await?;
        let overheard = self.clone();
        Ok(response
            .map(|body| listen_in(body, move |message| overheard.state().told(stream, message))))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn asked(&mut self, stream: usize, request: ListenRequest) {
        match request.target_change.unwrap() {
            TargetChange::AddTarget(target) => {
                let Some(TargetType::Documents(mut documents)) = target.target_type else {
                    panic!("no target is a query");
                };
                let document = documents.documents.pop().unwrap();
                let added = Target { document, current: false };
                let before = self.targets.insert((stream, target.target_id), added);
                assert!(before.is_none(), "the id is in use");
            }
            TargetChange::RemoveTarget(id) => {
                self.targets.remove(&(stream, id)).unwrap();
            }
        }
    }

    fn told(&mut self, stream: usize, response: ListenResponse) {
        match response.response_type.unwrap() {
            ResponseType::TargetChange(change)
                if change.target_change_type() == TargetChangeType::Current =>
            {
                for ((of, id), target) in &mut self.targets {
                    if *of == stream
                        && (change.target_ids.is_empty() || change.target_ids.contains(id))
                    {
                        target.current = true;
                    }
                }
            }
            ResponseType::DocumentChange(_) => self.changes += 1,
            _ => {}
        }
    }
}

/// The end of a stream, when this is dropped.
struct Ends {
    overheard: Overheard,
    stream: usize,
}

impl Drop for Ends {
    fn drop(&mut self) {
        let mut state = self.overheard.state();
        state.open.remove(&self.stream);
        state.targets.retain(|(stream, _), _| *stream != self.stream);
    }
}

fn listen_in<M: Message + Default>(body: Body, mut hear: impl FnMut(M) + Send + 'static) -> Body {
    let mut bytes = Vec::new();
    Body::new(body.map_frame(move |frame| {
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
        // Before each message stand five bytes: whether it is compressed, and its length.
        while let Some((length, rest)) = bytes.get(1..).and_then(<[u8]>::split_first_chunk) {
            let length = u32::from_be_bytes(*length) as usize;
            let Some(message) = rest.get(..length) else { break };
            hear(M::decode(message).unwrap());
            let mut rest = take(&mut bytes);
            bytes = rest.split_off(5 + length);
        }
        frame
    }))
}
