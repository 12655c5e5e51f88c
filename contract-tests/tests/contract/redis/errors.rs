//! Errors: each says what happened, where, and what to do, and none shows a key, an id or a password.

use std::error::Error as _;
use std::sync::Arc;

use libtest_mimic::Trial;
use syncguard_redis::{Backend, Error, ErrorCode, Lease, Operation, Publication, RedisBackend};

use super::faults::spare;
use super::{Cases, Outcome, fresh_id, fresh_key, long, raw, take};
use contract_tests::ports::free_port;
use contract_tests::servers::Server;

pub(super) fn trials(cases: &Cases) -> Vec<Trial> {
    vec![
        cases
            .trial("errors::e1_a_connection_that_fails_names_the_server_and_the_cause", connecting),
        cases.trial("errors::k4_an_error_shows_no_key_and_no_id", secrets),
        cases.trial("errors::e1_a_missing_permission_is_named", permission),
    ]
}

/// All that an error shows of itself and of its causes.
fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(" {cause} {cause:?}");
        source = cause.source();
    }
    text
}

async fn refused(url: &str, code: ErrorCode, parts: &[&str]) {
    let error = RedisBackend::connect(url).await.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert_eq!(error.operation(), Operation::Connect, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert!(!shown(&error).contains("hunter2"), "{}", shown(&error));
}

async fn connecting(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &["--requirepass", "right"]).await?;
    let port = spare.port;
    raw(&format!("redis://:right@127.0.0.1:{port}")).await;
    let closed = free_port();
    let here = format!("127.0.0.1:{port}");
    let nowhere = format!("127.0.0.1:{closed}");

    let unavailable = ErrorCode::ServiceUnavailable;
    let url = format!("redis://:hunter2@{nowhere}/3");
    refused(&url, unavailable, &[&nowhere, "database 3", "Connection refused"]).await;
    let url = format!("redis-sentinel://:hunter2@{nowhere}?sentinelServiceName=main");
    refused(&url, unavailable, &[&nowhere, "\"main\""]).await;
    let error = RedisBackend::builder().key_prefix("{a}");
    let url = format!("redis-cluster://:hunter2@{nowhere}");
    let error = error.connect(&url).await.unwrap_err();
    assert!(error.to_string().contains(&nowhere), "{error}");

    let denied = ErrorCode::AuthFailed;
    refused(&format!("redis://{here}"), denied, &[&here, "requires a password"]).await;
    refused(&format!("redis://:hunter2@{here}"), denied, &[&here, "password is wrong"]).await;

    let invalid = ErrorCode::InvalidArgument;
    let url = format!("redis://:right@{here}/99");
    refused(&url, invalid, &[&here, "database 99", "no database with the number"]).await;
    // With a feature for TLS, the server does not speak it, and does not answer. Without one, the
    // feature is named.
    let error = RedisBackend::connect(&format!("rediss://:hunter2@{here}")).await.unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");
    refused(&format!("redis://:hunter2@{here}9"), invalid, &["port"]).await;
    Ok(())
}

async fn secrets(server: Arc<Server>) -> Outcome {
    // As behind a proxy that does not allow scripts: the server quotes what it was sent.
    let spare = spare(&server, &["--rename-command", "EVALSHA", "HIDDEN"]).await?;
    raw(&spare.url).await;
    let backend = RedisBackend::connect(&spare.url).await?;
    let (key, id) = (fresh_key(), fresh_id());
    let fence = syncguard_redis::Fence::new(1).unwrap();
    let expires_at = syncguard_redis::Timestamp::from_millis(1);
    let lease = Lease::new(key.clone(), id.clone(), fence, expires_at);
    let publication = Publication::new(fence, "node", "a secret")?;
    let errors = [
        backend.acquire(&key, &id, long()).await.unwrap_err(),
        backend.extend(&lease, long()).await.unwrap_err(),
        backend.release(&lease).await.unwrap_err(),
        backend.extend_by_id(&id, long()).await.unwrap_err(),
        backend.release_by_id(&id).await.unwrap_err(),
        backend.get(&key).await.unwrap_err(),
        backend.find(&id).await.unwrap_err(),
        backend.handoff(&lease, &id, long()).await.unwrap_err(),
        backend.publish(&lease, &publication, long()).await.unwrap_err(),
        backend.published(&key).await.unwrap_err(),
        backend.withdraw(&lease).await.unwrap_err(),
    ];
    for error in errors {
        // No retry helps.
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
        let text = shown(&error);
        assert!(text.contains("unknown command"), "{text}");
        // Not even the beginning of a key, which a server may quote.
        for secret in [key.as_str(), &key.as_str()[..12], id.as_str(), "syncguard:", "a secret"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    Ok(())
}

async fn permission(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let raw = raw(&spare.url).await;
    let user = ["ACL", "SETUSER", "some", "on", ">pw", "~syncguard:*", "+@all", "-evalsha"];
    raw.run(&user).await;
    let url = format!("redis://some:pw@127.0.0.1:{}", spare.port);
    let backend = RedisBackend::connect(&url).await?;
    let error = take(&backend, &fresh_key()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AuthFailed, "{error}");
    assert!(error.to_string().contains("the command evalsha"), "{error}");
    // The connection stays in use, so the permission is enough.
    raw.run(&["ACL", "SETUSER", "some", "+evalsha"]).await;
    take(&backend, &fresh_key()).await?;

    raw.run(&["ACL", "SETUSER", "some", "resetkeys", "~other:*"]).await;
    let error = take(&backend, &fresh_key()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AuthFailed, "{error}");
    assert!(error.to_string().contains("keys"), "{error}");
    Ok(())
}
