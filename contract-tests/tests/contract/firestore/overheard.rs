//! What is said on Listen streams.

use std::collections::BTreeSet;
use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard};

use http_body_util::BodyExt;
use syncguard_firestore::gcloud_sdk::google::firestore::v1::{
    ListenRequest, ListenResponse, listen_request::TargetChange, listen_response::ResponseType,
    target_change::TargetChangeType,
};
use syncguard_firestore::gcloud_sdk::prost::Message;
use syncguard_firestore::gcloud_sdk::tonic::body::Body;
use syncguard_firestore::gcloud_sdk::tonic::codegen::http::{Request, Response};

/// What is listened to through a proxy, and what is told there. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Overheard(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    opened: usize,
    ended: usize,
    /// The streams and ids of what is listened to.
    targets: BTreeSet<(usize, i32)>,
    changes: usize,
}

impl Overheard {
    /// How many streams have ended.
    pub(super) fn ended(&self) -> usize {
        self.state().ended
    }

    /// How many streams are open.
    pub(super) fn open(&self) -> usize {
        let state = self.state();
        state.opened - state.ended
    }

    /// How many documents are listened to: each is a target, until the server confirms its removal.
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
            state.opened
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
        let known = match request.target_change.unwrap() {
            TargetChange::AddTarget(target) => self.targets.insert((stream, target.target_id)),
            TargetChange::RemoveTarget(id) => self.targets.contains(&(stream, id)),
        };
        assert!(known, "an id is used twice, or was never used");
    }

    fn told(&mut self, stream: usize, response: ListenResponse) {
        match response.response_type {
            Some(ResponseType::DocumentChange(_)) => self.changes += 1,
            Some(ResponseType::TargetChange(change))
                if change.target_change_type() == TargetChangeType::Remove =>
            {
                for id in change.target_ids {
                    self.targets.remove(&(stream, id));
                }
            }
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
        state.ended += 1;
        state.targets.retain(|(stream, _)| *stream != self.stream);
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
