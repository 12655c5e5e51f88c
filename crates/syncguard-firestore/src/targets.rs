//! What is listened to on one stream, and what Firestore tells of it.

use std::collections::HashMap;
use std::sync::Arc;

use gcloud_sdk::google::firestore::v1::{
    ListenRequest, ListenResponse, Target, TargetChange, listen_request,
    listen_response::ResponseType,
    target::{DocumentsTarget, TargetType},
    target_change::TargetChangeType,
};
use gcloud_sdk::tonic::{Code, Status};

/// The documents that a stream listens to: each is a target of its own, since waiters come and go
/// for each by itself.
pub(crate) struct Targets {
    /// `projects/{project}/databases/{database}`
    database: String,
    by_id: HashMap<i32, Watched>,
    ids: HashMap<Arc<str>, i32>,
    last_id: i32,
    worked: bool,
}

/// A document, as far as the stream has told of it.
///
/// A target begins with the state of its document, and is *current* once that reflects every change
/// that was committed before the target was added. It is added after somebody began to wait. So a
/// deletion since then either is in that state, which then has no document, or is told of later: a
/// waiter misses nothing who is woken whenever the target is current and the document is not there.
/// One who waits for a document that is there need not be woken just because the target is in
/// place, which saves an attempt. (That the target was *added* says nothing of its document.)
struct Watched {
    document: Arc<str>,
    exists: bool,
    current: bool,
}

impl Targets {
    pub(crate) fn new(database: &str) -> Self {
        Self {
            database: database.to_owned(),
            by_id: HashMap::new(),
            ids: HashMap::new(),
            last_id: 0,
            worked: false,
        }
    }

    /// Whether a target was ever current on this stream.
    pub(crate) const fn have_worked(&self) -> bool {
        self.worked
    }

    /// What to send to listen to a document, unless that is done already.
    pub(crate) fn add(&mut self, document: Arc<str>) -> Option<ListenRequest> {
        if self.ids.contains_key(&document) {
            return None;
        }
        // Ids are not used again, so that what is still on its way is not taken for something else.
        self.last_id = self.last_id.checked_add(1)?;
        self.ids.insert(document.clone(), self.last_id);
        let documents = DocumentsTarget { documents: vec![document.to_string()] };
        self.by_id.insert(self.last_id, Watched { document, exists: false, current: false });
        Some(self.request(listen_request::TargetChange::AddTarget(Target {
            target_id: self.last_id,
            target_type: Some(TargetType::Documents(documents)),
            ..Target::default()
        })))
    }

    /// What to send to listen to a document no more, unless that is so already.
    pub(crate) fn remove(&mut self, document: &str) -> Option<ListenRequest> {
        let id = self.ids.remove(document)?;
        self.by_id.remove(&id);
        Some(self.request(listen_request::TargetChange::RemoveTarget(id)))
    }

    fn request(&self, change: listen_request::TargetChange) -> ListenRequest {
        ListenRequest {
            database: self.database.clone(),
            target_change: Some(change),
            ..ListenRequest::default()
        }
    }

    /// Takes in what the server tells, and wakes those who wait for a document that is gone.
    ///
    /// # Errors
    ///
    /// When the server listens no more to a target that is wanted: all begin anew then.
    pub(crate) fn hear(
        &mut self,
        response: ListenResponse,
        mut wake: impl FnMut(&str),
    ) -> Result<(), Status> {
        match response.response_type {
            Some(ResponseType::DocumentChange(change)) => {
                // A renewal, or the next holder: no reason to wake anybody.
                self.each(&change.target_ids, |watched| watched.exists = true);
                self.gone(&change.removed_target_ids, wake);
            }
            Some(ResponseType::DocumentDelete(delete)) => {
                self.gone(&delete.removed_target_ids, wake);
            }
            Some(ResponseType::DocumentRemove(remove)) => {
                self.gone(&remove.removed_target_ids, wake);
            }
            Some(ResponseType::Filter(filter)) if filter.count == 0 => {
                self.gone(&[filter.target_id], wake);
            }
            Some(ResponseType::TargetChange(change)) => match change.target_change_type() {
                TargetChangeType::Current => {
                    self.worked = true;
                    self.each_or_all(&change.target_ids, |watched| {
                        watched.current = true;
                        if !watched.exists {
                            wake(&watched.document);
                        }
                    });
                }
                TargetChangeType::Reset => {
                    self.each_or_all(&change.target_ids, |watched| {
                        (watched.exists, watched.current) = (false, false);
                    });
                }
                TargetChangeType::Remove => self.removed(change)?,
                TargetChangeType::NoChange | TargetChangeType::Add => {}
            },
            Some(ResponseType::Filter(_)) | None => {}
        }
        Ok(())
    }

    fn gone(&mut self, ids: &[i32], mut wake: impl FnMut(&str)) {
        self.each(ids, |watched| {
            watched.exists = false;
            if watched.current {
                wake(&watched.document);
            }
        });
    }

    fn removed(&self, change: TargetChange) -> Result<(), Status> {
        // What was asked for is known here no more.
        let ids = change.target_ids;
        if !ids.is_empty() && !ids.iter().any(|id| self.by_id.contains_key(id)) {
            return Ok(());
        }
        let code = change.cause.map_or(Code::Unavailable, |cause| Code::from_i32(cause.code));
        Err(Status::new(code, "the server removed a target"))
    }

    fn each(&mut self, ids: &[i32], mut act: impl FnMut(&mut Watched)) {
        for id in ids {
            if let Some(watched) = self.by_id.get_mut(id) {
                act(watched);
            }
        }
    }

    /// A change of no target in particular is one of all.
    fn each_or_all(&mut self, ids: &[i32], act: impl FnMut(&mut Watched)) {
        if ids.is_empty() {
            self.by_id.values_mut().for_each(act);
        } else {
            self.each(ids, act);
        }
    }
}
