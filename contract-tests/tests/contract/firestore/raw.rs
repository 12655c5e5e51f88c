//! A client that reads and writes stored documents without the backend.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use syncguard_firestore::gcloud_sdk::google::firestore::v1::{
    BatchGetDocumentsRequest, CommitRequest, Document, ListDocumentsRequest, Value, Write,
    batch_get_documents_response::Result as Found, firestore_client::FirestoreClient,
    value::ValueType, write::Operation,
};
use syncguard_firestore::gcloud_sdk::google_cloud_auth::credentials::anonymous;
use syncguard_firestore::gcloud_sdk::{GoogleApi, GoogleAuthMiddleware};

use super::PROJECT;

/// The fields of a document. A JSON integer stands for a Firestore integer, any other number for a
/// double, and a list of numbers for bytes.
pub(super) type Fields = BTreeMap<String, Json>;

pub(super) struct Raw(pub(super) GoogleApi<FirestoreClient<GoogleAuthMiddleware>>);

impl Raw {
    pub(super) async fn connect(address: &str) -> Self {
        let api = GoogleApi::from_function_with_credentials(
            FirestoreClient::new,
            format!("http://{address}"),
            Some(database()),
            anonymous::Builder::new().build(),
        );
        Self(api.await.unwrap())
    }

    /// Writes a document without a condition.
    pub(super) async fn put(&self, path: &str, fields: &Json) {
        let fields = fields.as_object().unwrap();
        let fields = fields.iter().map(|(name, value)| (name.clone(), to_value(value)));
        let document =
            Document { name: name(path), fields: fields.collect(), ..Document::default() };
        self.write(Operation::Update(document)).await;
    }

    pub(super) async fn delete(&self, path: &str) {
        self.write(Operation::Delete(name(path))).await;
    }

    async fn write(&self, operation: Operation) {
        let write = Write { operation: Some(operation), ..Write::default() };
        let commit =
            CommitRequest { database: database(), writes: vec![write], ..CommitRequest::default() };
        self.0.get().commit(commit).await.unwrap();
    }

    /// Returns the lock documents whose key begins with this text.
    pub(super) async fn locks_of(&self, prefix: &str) -> Vec<String> {
        let request = ListDocumentsRequest {
            parent: format!("{}/documents", database()),
            collection_id: "locks".to_owned(),
            page_size: 10_000,
            ..ListDocumentsRequest::default()
        };
        let documents = self.0.get().list_documents(request).await.unwrap().into_inner().documents;
        let names = documents.into_iter().map(|document| document.name);
        names.filter(|name| name.contains(&format!("/locks/{prefix}"))).collect()
    }

    pub(super) async fn get(&self, path: &str) -> Option<Fields> {
        let request = BatchGetDocumentsRequest {
            database: database(),
            documents: vec![name(path)],
            ..BatchGetDocumentsRequest::default()
        };
        let replies = self.0.get().batch_get_documents(request).await;
        let reply = replies.unwrap().into_inner().message().await.unwrap();
        match reply.unwrap().result.unwrap() {
            Found::Found(document) => {
                let fields = document.fields.into_iter();
                Some(fields.map(|(name, value)| (name, to_json(value))).collect())
            }
            Found::Missing(_) => None,
        }
    }
}

pub(super) fn fields(json: Json) -> Fields {
    serde_json::from_value(json).unwrap()
}

fn database() -> String {
    format!("projects/{PROJECT}/databases/(default)")
}

fn name(path: &str) -> String {
    format!("{}/documents/{path}", database())
}

fn to_value(json: &Json) -> Value {
    let value = match json {
        Json::String(text) => ValueType::StringValue(text.clone()),
        Json::Array(_) => ValueType::BytesValue(serde_json::from_value(json.clone()).unwrap()),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => ValueType::IntegerValue(integer),
            None => ValueType::DoubleValue(number.as_f64().unwrap()),
        },
        other => panic!("no test field holds {other}"),
    };
    Value { value_type: Some(value) }
}

fn to_json(value: Value) -> Json {
    match value.value_type.unwrap() {
        ValueType::StringValue(text) => json!(text),
        ValueType::IntegerValue(integer) => json!(integer),
        ValueType::DoubleValue(double) => json!(double),
        ValueType::BytesValue(bytes) => json!(bytes),
        other => panic!("no test field holds {other:?}"),
    }
}
