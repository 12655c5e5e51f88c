//! The requests that operations make.

use std::ops::Deref;
use std::time::Duration;

use gcloud_sdk::RequestTimeouts;
use gcloud_sdk::google::firestore::v1::{
    BatchGetDocumentsRequest, CommitRequest, Document, ExplainOptions, RunQueryRequest,
    StructuredQuery, Value, Write, batch_get_documents_response as batch_get,
    run_query_request::QueryType, structured_query as query, value::ValueType,
};
use gcloud_sdk::prost_types::Timestamp as Revision;
use gcloud_sdk::tonic::Request;
use syncguard_core::{LockId, Result, Sent};
use tokio::time::Instant;

use crate::clock::{ClientClock, ClockOffset};
use crate::connect::Api;
use crate::connection::{Connection, Exchange};
use crate::error::{Failure, is_refusal};
use crate::names::Names;
use crate::record::LOCK_ID;

/// Firestore, as far as locks need it.
pub(crate) struct Store {
    pub(crate) connection: Connection,
    pub(crate) names: Names,
    pub(crate) clock: ClientClock,
    /// The longest that an operation may take.
    pub(crate) command_timeout: Duration,
}

impl Store {
    pub(crate) fn begin(&self) -> Session<'_> {
        Session { store: self, begun: Instant::now(), sent: None }
    }

    /// Begins an operation that marks when it sends the first request that changes something.
    pub(crate) fn begin_marking<'a>(&'a self, sent: &'a Sent) -> Session<'a> {
        Session { sent: Some(sent), ..self.begin() }
    }
}

/// The store, for the time of one operation.
#[derive(Clone, Copy)]
pub(crate) struct Session<'a> {
    store: &'a Store,
    begun: Instant,
    sent: Option<&'a Sent>,
}

impl Deref for Session<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store
    }
}

/// Which index Firestore uses for look-ups by lock id.
pub(crate) enum Index {
    Used,
    Missing,
    /// The server does not explain queries.
    NotTold,
}

/// What became of a commit.
pub(crate) enum Commit {
    /// It was applied; the first document it wrote has this revision now, unless it was deleted.
    Applied(Option<Revision>),
    /// A document was not as it was read, or others were at work on it: nothing was written.
    Refused,
    /// The server stayed silent. It may apply the commit, or have applied it.
    Unanswered,
}

impl Session<'_> {
    /// Returns the documents of these names, all as of about now; `None` for those that do not exist.
    pub(crate) async fn read<const N: usize>(
        self,
        names: [&str; N],
    ) -> Result<([Option<Document>; N], Option<ClockOffset>)> {
        loop {
            let mut exchange = self.exchange().await?;
            if let Some(read) = exchange.answer(self.read_on(exchange.api(), names)).await? {
                return Ok(read);
            }
        }
    }

    async fn read_on<const N: usize>(
        self,
        mut api: Api,
        names: [&str; N],
    ) -> Result<([Option<Document>; N], Option<ClockOffset>), Failure> {
        let sent = self.clock.now();
        let request = BatchGetDocumentsRequest {
            database: self.names.database.clone(),
            documents: names.iter().map(|name| (*name).to_owned()).collect(),
            ..BatchGetDocumentsRequest::default()
        };
        let mut replies = api.batch_get_documents(self.request(request)).await?.into_inner();

        let mut found = [const { None }; N];
        let mut offset = None;
        while let Some(reply) = replies.message().await? {
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
            *document = found.ok_or(Failure::Incomplete)?;
            if let Some(document) = document {
                name.clone_into(&mut document.name);
            }
        }
        Ok((documents, offset))
    }

    /// Returns the lock documents with this id: one, unless somebody copied documents by hand.
    pub(crate) async fn find(self, id: &LockId) -> Result<Vec<Document>> {
        loop {
            let mut exchange = self.exchange().await?;
            if let Some(found) = exchange.answer(self.find_on(exchange.api(), id)).await? {
                return Ok(found);
            }
        }
    }

    async fn find_on(self, mut api: Api, id: &LockId) -> Result<Vec<Document>, Failure> {
        let sent = self.clock.now();
        let request = self.query(id, None);
        let mut replies = api.run_query(request).await?.into_inner();

        // A query that finds nothing is answered as well, with the time: a reply that was cut short
        // must not look like an id that does not exist.
        let mut next = Some(replies.message().await?.ok_or(Failure::Incomplete)?);
        if let Some(time) = next.as_ref().and_then(|first| first.read_time) {
            self.clock.observe(sent, time);
        }
        let mut documents = Vec::new();
        while let Some(reply) = next {
            if let Some(mut document) = reply.document {
                document.name = format!("{}/{}", self.names.root, path(&document.name));
                documents.push(document);
            }
            next = replies.message().await?;
        }
        Ok(documents)
    }

    /// Asks which index a look-up by id uses. The query does not run.
    pub(crate) async fn index_of(self, id: &LockId) -> Result<Index> {
        let mut exchange = self.exchange().await?;
        let mut api = exchange.api();
        let explain = async {
            let request = self.query(id, Some(ExplainOptions { analyze: false }));
            let mut replies = api.run_query(request).await?.into_inner();
            while let Some(reply) = replies.message().await? {
                if let Some(plan) = reply.explain_metrics.and_then(|metrics| metrics.plan_summary) {
                    let found = !plan.indexes_used.is_empty();
                    return Ok(if found { Index::Used } else { Index::Missing });
                }
            }
            Ok(Index::NotTold)
        };
        let index = exchange.answer(explain).await?;
        Ok(index.unwrap_or(Index::NotTold))
    }

    /// The query for the lock documents with this id.
    fn query(self, id: &LockId, explain: Option<ExplainOptions>) -> Request<RunQueryRequest> {
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
        self.request(RunQueryRequest {
            parent: self.names.root.clone(),
            query_type: Some(QueryType::StructuredQuery(query)),
            explain_options: explain,
            ..RunQueryRequest::default()
        })
    }

    /// Makes all the writes if the precondition of each is met, or none.
    ///
    /// If the server stays silent, a commit that is `repeatable` is given up in time to try again.
    pub(crate) async fn commit(self, writes: Vec<Write>, repeatable: bool) -> Result<Commit> {
        let request = CommitRequest {
            database: self.names.database.clone(),
            writes,
            ..CommitRequest::default()
        };
        let mut exchange = self.exchange().await?;
        let mut api = exchange.api();
        if let Some(sent) = self.sent {
            sent.mark();
        }
        let sent_at = self.clock.now();
        let reply = async { Ok(api.commit(self.request(request)).await?.into_inner()) };
        let reply =
            if repeatable { exchange.answer(reply).await } else { exchange.all(reply).await };
        match reply {
            Ok(Some(reply)) => {
                if let Some(time) = reply.commit_time {
                    self.clock.observe(sent_at, time);
                }
                let first = reply.write_results.first();
                Ok(Commit::Applied(first.and_then(|write| write.update_time)))
            }
            Ok(None) => Ok(Commit::Unanswered),
            Err(Failure::Status(status)) if is_refusal(&status) => Ok(Commit::Refused),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Waits for a connection, and begins a request on it.
    async fn exchange(self) -> Result<Exchange> {
        let link = self.connection.link().await?;
        Ok(link.begin(self.begun + self.command_timeout))
    }

    /// Tells the server what is left of the command timeout, so that it does not go on for longer.
    fn request<M>(self, message: M) -> Request<M> {
        let left = self.command_timeout.saturating_sub(self.begun.elapsed());
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
