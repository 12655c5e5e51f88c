//! Firestore: beside as many bare reads and commits through the same client.

use std::time::Duration;

use gcloud_sdk::google::firestore::v1::firestore_client::FirestoreClient;
use gcloud_sdk::google::firestore::v1::value::ValueType;
use gcloud_sdk::google::firestore::v1::write::Operation;
use gcloud_sdk::google::firestore::v1::{
    BatchGetDocumentsRequest, CommitRequest, Document, Value, Write,
};
use gcloud_sdk::google_cloud_auth::credentials::anonymous;
use gcloud_sdk::{GoogleApi, GoogleAuthMiddleware};
use syncguard_core::LockId;
use syncguard_firestore::{FirestoreBackend, LockManager, gcloud_sdk};

use crate::measure::{Contestant, Outcome, compare, locks_of};

type Client = GoogleApi<FirestoreClient<GoogleAuthMiddleware>>;

const DATABASE: &str = "projects/bench/databases/(default)";

/// On an emulator at this URL.
pub(crate) async fn run(url: &str) -> Outcome {
    let credentials = anonymous::Builder::new().build();
    let client: Client = GoogleApi::from_function_with_credentials(
        FirestoreClient::new,
        url.to_owned(),
        Some(DATABASE.to_owned()),
        credentials,
    )
    .await?;
    let builder = FirestoreBackend::builder("bench").time_limit(Duration::from_secs(20));
    let backend = builder.build(client.clone())?;

    println!("Firestore: acquire (read, commit) and release (commit)");
    let contestants = [
        Contestant::new("bare read and two commits", move |key| {
            let client = client.clone();
            async move { read_and_commit_twice(&client, &key).await }
        }),
        locks_of("backend alone", &backend)?,
        Contestant::of(LockManager::new(backend)),
    ];
    compare(&contestants, &[1, 16]).await
}

async fn read_and_commit_twice(client: &Client, key: &str) -> Outcome {
    let (lock, fence) = (name("floor_locks", key), name("floor_fences", key));
    let mut api = client.get();
    let read = BatchGetDocumentsRequest {
        database: DATABASE.to_owned(),
        documents: vec![lock.clone(), fence.clone()],
        ..BatchGetDocumentsRequest::default()
    };
    let mut documents = api.batch_get_documents(read).await?.into_inner();
    while documents.message().await?.is_some() {}

    let id = LockId::random()?;
    let text = |text: &str| Value { value_type: Some(ValueType::StringValue(text.to_owned())) };
    let number = Value { value_type: Some(ValueType::IntegerValue(1_800_000_000_000)) };
    let lock_fields = [
        ("lockId", text(id.as_str())),
        ("key", text(key)),
        ("fence", text("000000000000001")),
        ("acquiredAtMs", number.clone()),
        ("expiresAtMs", number),
    ];
    let fence_fields = [("fence", text("000000000000001")), ("keyDebug", text(key))];
    let put = vec![update(lock.clone(), &lock_fields), update(fence, &fence_fields)];
    commit(client, put).await?;
    commit(client, vec![Write { operation: Some(Operation::Delete(lock)), ..Write::default() }])
        .await
}

fn name(collection: &str, key: &str) -> String {
    format!("{DATABASE}/documents/{collection}/{key}")
}

fn update(name: String, fields: &[(&str, Value)]) -> Write {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    let document = Document { name, fields: fields.collect(), ..Document::default() };
    Write { operation: Some(Operation::Update(document)), ..Write::default() }
}

async fn commit(client: &Client, writes: Vec<Write>) -> Outcome {
    let request =
        CommitRequest { database: DATABASE.to_owned(), writes, ..CommitRequest::default() };
    client.get().commit(request).await?;
    Ok(())
}
