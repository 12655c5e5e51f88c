//! Records the messages on Listen streams that pass through a proxy.

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

/// The Listen streams of a proxy, their targets, and the changes sent on them. Clones share one
/// state.
#[derive(Clone, Default)]
pub(super) struct Overheard(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    opened: usize,
    ended: usize,
    /// The stream and the id of each target.
    targets: BTreeSet<(usize, i32)>,
    changes: usize,
}

impl Overheard {
    /// Returns how many streams have ended.
    pub(super) fn ended(&self) -> usize {
        self.state().ended
    }

    /// Returns how many streams are open.
    pub(super) fn open(&self) -> usize {
        let state = self.state();
        state.opened - state.ended
    }

    /// Returns the number of targets. Each is one document, until the server confirms its removal.
    pub(super) fn targets(&self) -> usize {
        self.state().targets.len()
    }

    /// Returns how many document states the server sent so far. A deletion does not count.
    pub(super) fn changes(&self) -> usize {
        self.state().changes
    }

    /// Forwards a stream and records its messages.
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
        let guard = StreamGuard { overheard: self.clone(), stream };
        let request = request.map(|body| {
            record_messages(body, move |message| {
                guard.overheard.state().requested(guard.stream, message)
            })
        });
        let response = call(request).await?;
        let overheard = self.clone();
        Ok(response.map(|body| {
            record_messages(body, move |message| overheard.state().responded(stream, message))
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn requested(&mut self, stream: usize, request: ListenRequest) {
        let known = match request.target_change.unwrap() {
            TargetChange::AddTarget(target) => self.targets.insert((stream, target.target_id)),
            TargetChange::RemoveTarget(id) => self.targets.contains(&(stream, id)),
        };
        assert!(known, "a target id is used twice, or an unknown one is removed");
    }

    fn responded(&mut self, stream: usize, response: ListenResponse) {
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

/// Records the end of a stream when it is dropped.
struct StreamGuard {
    overheard: Overheard,
    stream: usize,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let mut state = self.overheard.state();
        state.ended += 1;
        state.targets.retain(|(stream, _)| *stream != self.stream);
    }
}

fn record_messages<M: Message + Default>(
    body: Body,
    mut record: impl FnMut(M) + Send + 'static,
) -> Body {
    let mut bytes = Vec::new();
    Body::new(body.map_frame(move |frame| {
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
        // In gRPC, five bytes precede each message: the compression flag and the length.
        while let Some((length, rest)) = bytes.get(1..).and_then(<[u8]>::split_first_chunk) {
            let length = u32::from_be_bytes(*length) as usize;
            let Some(message) = rest.get(..length) else { break };
            record(M::decode(message).unwrap());
            let mut rest = take(&mut bytes);
            bytes = rest.split_off(5 + length);
        }
        frame
    }))
}
