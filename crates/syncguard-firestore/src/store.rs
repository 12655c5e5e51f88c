//! The three requests that operations make.

use std::ops::Deref;
use std::time::Duration;

use gcloud_sdk::google::firestore::v1::{
    BatchGetDocumentsRequest, CommitRequest, Document, RunQueryRequest, StructuredQuery, Value,
    Write, batch_get_documents_response as batch_get, firestore_client::FirestoreClient,
    run_query_request::QueryType, structured_query as query, value::ValueType,
};
use gcloud_sdk::prost_types::Timestamp as Revision;
use gcloud_sdk::tonic::Request;
use gcloud_sdk::{GoogleApi, GoogleAuthMiddleware, RequestTimeouts};
use syncguard_core::{ErrorCode, LockId, Result};
use tokio::time::Instant;

use crate::clock::{ClientClock, ClockOffset};
use crate::document::{LOCK_ID, Names};
use crate::error::{classify, failure, is_refusal};

/// Firestore, as far as locks need it.
pub(crate) struct Store {
    pub(crate) api: GoogleApi<FirestoreClient<GoogleAuthMiddleware>>,
    pub(crate) names: Names,
    pub(crate) clock: ClientClock,
    /// The longest that an operation may take.
    pub(crate) time_limit: Duration,
}

impl Store {
    pub(crate) fn begin(&self) -> Session<'_> {
        Session { store: self, begun: Instant::now() }
    }
}

/// The store, for the time of one operation.
#[derive(Clone, Copy)]
pub(crate) struct Session<'a> {
    store: &'a Store,
    begun: Instant,
}

impl Deref for Session<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store
    }
}

/// What became of a commit.
pub(crate) enum Commit {
    /// It was applied; the first document it wrote has this revision now, unless it was deleted.
    Applied(Option<Revision>),
    /// A document was not as it was read, or others were at work on it: nothing was written.
    Refused,
}

impl Session<'_> {
    /// The documents of these names, all as of about now; `None` for those that do not exist.
    pub(crate) async fn read<const N: usize>(
        self,
        names: [&str; N],
    ) -> Result<([Option<Document>; N], Option<ClockOffset>)> {
        let sent = self.clock.now();
        let request = BatchGetDocumentsRequest {
            database: self.names.database.clone(),
            documents: names.iter().map(|name| (*name).to_owned()).collect(),
            ..BatchGetDocumentsRequest::default()
        };
        let mut api = self.api.get();
        let replies = api.batch_get_documents(self.request(request)).await;
        let mut replies = replies.map_err(classify)?.into_inner();

        let mut found = [const { None }; N];
        let mut offset = None;
        while let Some(reply) = replies.message().await.map_err(classify)? {
            if offset.is_none() {
                offset = reply.read_time.map(|time| self.clock.observe(sent, time));
            }
            let (name, document) = match reply.result {
                Some(batch_get::Result::Found(document)) => (document.name.clone(), Some(document)),
                Some(batch_get::Result::Missing(name)) => (name, None),
                None => continue,
            };
            // The server may spell the project in another way, by its number for instance.
            let asked = names.iter().position(|asked| path(asked) == path(&name));
            if let Some(slot) = asked.and_then(|index| found.get_mut(index)) {
                *slot = Some(document);
            }
        }

        let mut documents = [const { None }; N];
        for ((document, found), name) in documents.iter_mut().zip(found).zip(names) {
            // A reply that was cut short must not look like a document that does not exist.
            *document = found.ok_or_else(incomplete)?;
            if let Some(document) = document {
                name.clone_into(&mut document.name);
            }
        }
        Ok((documents, offset))
    }

    /// The lock documents with this id: one, unless somebody copied documents by hand.
    pub(crate) async fn find(self, id: &LockId) -> Result<Vec<Document>> {
        let id = Value { value_type: Some(ValueType::StringValue(id.as_str().to_owned())) };
        let filter = query::FieldFilter {
            field: Some(query::FieldReference { field_path: LOCK_ID.to_owned() }),
            op: query::field_filter::Operator::Equal.into(),
            value: Some(id),
        };
        let query = StructuredQuery {
            from: vec![query::CollectionSelector {
                collection_id: self.names.locks.clone(),
                all_descendants: false,
            }],
            r#where: Some(query::Filter {
                filter_type: Some(query::filter::FilterType::FieldFilter(filter)),
            }),
            ..StructuredQuery::default()
        };
        let sent = self.clock.now();
        let request = RunQueryRequest {
            parent: self.names.root.clone(),
            query_type: Some(QueryType::StructuredQuery(query)),
            ..RunQueryRequest::default()
        };
        let mut api = self.api.get();
        let replies = api.run_query(self.request(request)).await;
        let mut replies = replies.map_err(classify)?.into_inner();

        // A query that finds nothing is answered as well, with the time: a reply that was cut short
        // must not look like an id that does not exist.
        let mut next = Some(replies.message().await.map_err(classify)?.ok_or_else(incomplete)?);
        if let Some(time) = next.as_ref().and_then(|first| first.read_time) {
            self.clock.observe(sent, time);
        }
        let mut documents = Vec::new();
        while let Some(reply) = next {
            if let Some(mut document) = reply.document {
                document.name = format!("{}/{}", self.names.root, path(&document.name));
                documents.push(document);
            }
            next = replies.message().await.map_err(classify)?;
        }
        Ok(documents)
    }

    /// Makes all the writes, if the precondition of each is met, or none.
    pub(crate) async fn commit(self, writes: Vec<Write>) -> Result<Commit> {
        let sent = self.clock.now();
        let request = CommitRequest {
            database: self.names.database.clone(),
            writes,
            ..CommitRequest::default()
        };
        let mut api = self.api.get();
        match api.commit(self.request(request)).await {
            Ok(reply) => {
                let reply = reply.into_inner();
                if let Some(time) = reply.commit_time {
                    self.clock.observe(sent, time);
                }
                let first = reply.write_results.first();
                Ok(Commit::Applied(first.and_then(|write| write.update_time)))
            }
            Err(status) if is_refusal(&status) => Ok(Commit::Refused),
            Err(status) => Err(classify(status)),
        }
    }

    /// Tells the server what is left of the time limit, so that it does not go on for longer.
    fn request<M>(self, message: M) -> Request<M> {
        let left = self.time_limit.saturating_sub(self.begun.elapsed());
        let mut request = Request::new(message);
        request.extensions_mut().insert(RequestTimeouts::new().with_total(left));
        request
    }
}

/// What follows `projects/{project}/databases/{database}/documents/`, any of which may be called
/// `documents`.
fn path(name: &str) -> &str {
    name.splitn(6, '/').nth(5).unwrap_or(name)
}

pub(crate) fn incomplete() -> syncguard_core::Error {
    failure(ErrorCode::ServiceUnavailable).with_message("Firestore's reply was not complete")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_the_path_begins_after_project_and_database() {
        for root in [
            "projects/p/databases/(default)/documents",
            "projects/1234567890/databases/(default)/documents",
            "projects/p/databases/documents/documents",
            "projects/documents/databases/(default)/documents",
            "projects/documents/databases/documents/documents",
        ] {
            for ours in ["locks/k", "documents/documents", "locks/a:documents"] {
                assert_eq!(path(&format!("{root}/{ours}")), ours, "{root}");
            }
        }
    }
}
