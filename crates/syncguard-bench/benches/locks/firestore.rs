//! Firestore, compared with the same number of bare reads and commits through the same client.

use std::time::Duration;

use gcloud_sdk::google::firestore::v1::firestore_client::FirestoreClient;
use gcloud_sdk::google::firestore::v1::value::ValueType;
use gcloud_sdk::google::firestore::v1::write::Operation;
use gcloud_sdk::google::firestore::v1::{
    BatchGetDocumentsRequest, CommitRequest, Document, Value, Write,
};
use gcloud_sdk::google_cloud_auth::credentials::anonymous;
use gcloud_sdk::{GoogleApi, GoogleAuthMiddleware};
use syncguard_bench::Outcome;
use syncguard_core::LockId;
use syncguard_firestore::{FirestoreBackend, gcloud_sdk};

use crate::contestant::{Contestant, LOCK_MANAGER};
use crate::options::Pace;
use crate::uncontended::compare;

mod requests;

pub(crate) use requests::Requests;

type Client = GoogleApi<FirestoreClient<GoogleAuthMiddleware>>;

const WITH_NOTIFICATIONS: &str = "SyncGuard, notifications";

/// No other library supports Firestore.
pub(crate) const ON_THE_HOT_KEY: &[&str] = &[LOCK_MANAGER, WITH_NOTIFICATIONS];

const DATABASE: &str = "projects/bench/databases/(default)";

/// Compares the contestants on the emulator at this URL.
pub(crate) async fn uncontended(url: &str, pace: Pace) -> Outcome {
    let client = connect(url).await?;
    let backend = backend(url, false).await?;
    let contestants = [
        read_and_commit_twice(client),
        Contestant::backend_alone(backend.clone())?,
        Contestant::lock_manager(backend),
    ];
    compare("Firestore", &contestants, &[1, 4, 16, 64], pace).await
}

pub(crate) async fn contestant(url: &str, name: &str) -> Outcome<Contestant> {
    Ok(Contestant::lock_manager(backend(url, name == WITH_NOTIFICATIONS).await?))
}

pub(crate) async fn backend(url: &str, notifications: bool) -> Outcome<FirestoreBackend> {
    let builder = FirestoreBackend::builder().command_timeout(Duration::from_secs(20));
    let builder = builder.notifications(notifications);
    Ok(builder.build("bench", &connect(url).await?)?)
}

async fn connect(url: &str) -> Outcome<Client> {
    let credentials = anonymous::Builder::new().build();
    Ok(GoogleApi::from_function_with_credentials(
        FirestoreClient::new,
        url.to_owned(),
        Some(DATABASE.to_owned()),
        credentials,
    )
    .await?)
}

fn read_and_commit_twice(client: Client) -> Contestant {
    Contestant::new("bare read and two commits", move |key| {
        let client = client.clone();
        async move {
            let lock = name("floor_locks", &key);
            read_and_commit(&client, &key, lock.clone()).await?;
            let delete = Write { operation: Some(Operation::Delete(lock)), ..Write::default() };
            Ok(async move { commit(&client, vec![delete]).await })
        }
    })
}

async fn read_and_commit(client: &Client, key: &str, lock: String) -> Outcome {
    let fence = name("floor_fences", key);
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
    let put = vec![update(lock, &lock_fields), update(fence, &fence_fields)];
    commit(client, put).await
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
