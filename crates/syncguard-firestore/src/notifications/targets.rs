//! What is listened to on one stream, and what Firestore tells of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gcloud_sdk::google::firestore::v1::{
    ListenRequest, ListenResponse, Target, TargetChange, listen_request,
    listen_response::ResponseType,
    target::{DocumentsTarget, TargetType},
    target_change::TargetChangeType,
};
use gcloud_sdk::tonic::{Code, Status};
use tokio::time::Instant;

/// The documents that a stream listens to: each is a target of its own, since waiters come and go
/// for each by itself.
pub(crate) struct Targets {
    /// `projects/{project}/databases/{database}`
    database: String,
    by_id: HashMap<i32, Arc<str>>,
    ids: HashMap<Arc<str>, i32>,
    last_id: i32,
    current_since: Option<Instant>,
}

impl Targets {
    pub(crate) fn new(database: &str) -> Self {
        Self {
            database: database.to_owned(),
            by_id: HashMap::new(),
            ids: HashMap::new(),
            last_id: 0,
            current_since: None,
        }
    }

    /// How long ago a target was current on this stream for the first time, if one ever was.
    pub(crate) fn worked_for(&self) -> Option<Duration> {
        self.current_since.map(|first| first.elapsed())
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
        self.by_id.insert(self.last_id, document);
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

    /// Takes in what the server tells, and wakes those who wait for a document that may be gone.
    ///
    /// That a target was *added* says nothing of its document yet. When it is *current*, all that was
    /// committed before it was added has been told, and each later deletion will be. One that came
    /// in between may have been told as an initial state without the document, so all who wait for it
    /// are woken then, also when the server had to begin with it anew. They are woken as well if the
    /// initial state has the document: the emulator can lose a deletion that comes just then.
    ///
    /// # Errors
    ///
    /// When the server listens no more to a target that is wanted: all begin anew then.
    pub(crate) fn hear(
        &mut self,
        response: ListenResponse,
        mut wake: impl FnMut(&str),
    ) -> Result<(), Status> {
        let gone = match response.response_type {
            Some(ResponseType::TargetChange(change)) => match change.target_change_type() {
                TargetChangeType::Current => {
                    self.current_since.get_or_insert_with(Instant::now);
                    self.affected(change.target_ids)
                }
                TargetChangeType::Remove => return self.removed(change),
                TargetChangeType::Add | TargetChangeType::NoChange | TargetChangeType::Reset => {
                    return Ok(());
                }
            },
            Some(ResponseType::DocumentDelete(delete)) => delete.removed_target_ids,
            Some(ResponseType::DocumentRemove(remove)) => remove.removed_target_ids,
            Some(ResponseType::Filter(filter)) if filter.count == 0 => vec![filter.target_id],
            // A renewal, or the next holder: no reason to wake anybody.
            Some(ResponseType::DocumentChange(_) | ResponseType::Filter(_)) | None => return Ok(()),
        };
        for document in gone.iter().filter_map(|id| self.by_id.get(id)) {
            wake(document);
        }
        Ok(())
    }

    /// When the server removes a target by itself. What was asked for is known here no more.
    fn removed(&self, change: TargetChange) -> Result<(), Status> {
        let ids = self.affected(change.target_ids);
        if !ids.iter().any(|id| self.by_id.contains_key(id)) {
            return Ok(());
        }
        let code = change.cause.map_or(Code::Unavailable, |cause| Code::from_i32(cause.code));
        Err(Status::new(code, "the server removed a target"))
    }

    /// A change of no target in particular is one of all.
    fn affected(&self, ids: Vec<i32>) -> Vec<i32> {
        if ids.is_empty() { self.by_id.keys().copied().collect() } else { ids }
    }
}

#[cfg(test)]
mod tests {
    use gcloud_sdk::google::firestore::v1::{
        DocumentChange, DocumentDelete, DocumentRemove, ExistenceFilter,
    };
    use gcloud_sdk::google::rpc;

    use super::*;

    /// Three documents with the ids 1, 2 and 3.
    fn three() -> Targets {
        let mut targets = Targets::new("projects/p/databases/d");
        for document in ["a", "b", "c"] {
            assert!(targets.add(document.into()).is_some());
        }
        targets
    }

    fn told(kind: TargetChangeType, ids: &[i32], cause: Option<Code>) -> ResponseType {
        ResponseType::TargetChange(TargetChange {
            target_change_type: kind.into(),
            target_ids: ids.to_vec(),
            cause: cause.map(|code| rpc::Status { code: code.into(), ..rpc::Status::default() }),
            ..TargetChange::default()
        })
    }

    /// Who is woken, in order.
    fn woken(targets: &mut Targets, told: ResponseType) -> Result<String, Code> {
        let mut woken = Vec::new();
        let response = ListenResponse { response_type: Some(told) };
        match targets.hear(response, |document| woken.push(document.to_owned())) {
            Ok(()) => {
                woken.sort();
                Ok(woken.concat())
            }
            Err(status) => Err(status.code()),
        }
    }

    fn ok(woken: &str) -> Result<String, Code> {
        Ok(woken.to_owned())
    }

    #[test]
    fn w_a_document_that_is_gone_wakes() {
        let mut targets = three();
        for (gone, who) in [
            (
                ResponseType::DocumentDelete(DocumentDelete {
                    removed_target_ids: vec![1],
                    ..DocumentDelete::default()
                }),
                "a",
            ),
            (
                ResponseType::DocumentRemove(DocumentRemove {
                    removed_target_ids: vec![2, 3, 4],
                    ..DocumentRemove::default()
                }),
                "bc",
            ),
            (
                ResponseType::Filter(ExistenceFilter {
                    target_id: 3,
                    count: 0,
                    ..ExistenceFilter::default()
                }),
                "c",
            ),
        ] {
            assert_eq!(woken(&mut targets, gone), ok(who));
        }
    }

    #[test]
    fn w_a_document_that_is_there_does_not_wake() {
        let mut targets = three();
        let renewed = DocumentChange { target_ids: vec![1], ..DocumentChange::default() };
        assert_eq!(woken(&mut targets, ResponseType::DocumentChange(renewed)), ok(""));
        let there = ExistenceFilter { target_id: 1, count: 1, ..ExistenceFilter::default() };
        assert_eq!(woken(&mut targets, ResponseType::Filter(there)), ok(""));
    }

    #[test]
    fn w_a_target_that_is_current_wakes_and_one_that_was_added_does_not() {
        let mut targets = three();
        for kind in [TargetChangeType::Add, TargetChangeType::NoChange, TargetChangeType::Reset] {
            assert_eq!(woken(&mut targets, told(kind, &[1], None)), ok(""));
            assert_eq!(targets.worked_for(), None);
        }
        assert_eq!(woken(&mut targets, told(TargetChangeType::Current, &[1], None)), ok("a"));
        assert!(targets.worked_for().is_some());
        assert_eq!(woken(&mut targets, told(TargetChangeType::Current, &[], None)), ok("abc"));
    }

    #[test]
    fn w_a_target_that_the_server_removes_is_an_error() {
        let mut targets = three();
        let removed = |ids: &[i32], cause| told(TargetChangeType::Remove, ids, cause);
        let denied = Some(Code::PermissionDenied);
        assert_eq!(woken(&mut targets, removed(&[1], denied)), Err(Code::PermissionDenied));
        assert_eq!(woken(&mut targets, removed(&[], None)), Err(Code::Unavailable));
        assert!(targets.remove("a").is_some());
        assert_eq!(woken(&mut targets, removed(&[1], None)), ok(""), "it was asked for");
    }

    #[test]
    fn w_an_id_is_not_used_again() {
        let mut targets = three();
        assert!(targets.add("a".into()).is_none());
        assert!(targets.remove("a").is_some());
        assert!(targets.remove("a").is_none());
        assert!(targets.add("a".into()).is_some());
        assert_eq!(woken(&mut targets, told(TargetChangeType::Current, &[1], None)), ok(""));
        assert_eq!(woken(&mut targets, told(TargetChangeType::Current, &[4], None)), ok("a"));
    }
}
