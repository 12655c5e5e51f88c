//! TLS in a program with two rustls providers, none of which is installed.
//!
//! Alone in its process, because whoever installs a provider does so for the whole process.

use std::net::TcpListener;
use std::thread;

use syncguard_firestore::gcloud_sdk::google_cloud_auth::credentials::anonymous;
use syncguard_firestore::{ErrorCode, FirestoreBackend};

#[tokio::test]
async fn f3_two_providers_in_one_program_do_no_harm() {
    // Both are compiled in, so rustls cannot choose by itself.
    let _ =
        (rustls::crypto::ring::default_provider(), rustls::crypto::aws_lc_rs::default_provider());
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());

    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // Closes each connection, so a handshake begins and fails.
    thread::spawn(move || socket.incoming().for_each(drop));
    let builder = FirestoreBackend::builder()
        .endpoint(format!("https://{address}"))
        .credentials(anonymous::Builder::new().build());
    let error = builder.connect("p").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable, "{error}");
    // Nothing was chosen for the rest of the program.
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}
