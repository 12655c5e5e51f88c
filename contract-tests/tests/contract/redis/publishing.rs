//! What a leader publishes: where it is stored, what else may be there, and which permission it takes.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use syncguard_redis::fred::interfaces::ClientLike;
use syncguard_redis::fred::types::{ClusterHash, CustomCommand, Value};
use syncguard_redis::{Backend, ErrorCode, Lease, Level, Publication, RedisBackend};

use super::faults::spare;
use super::records::connect;
use super::{Cases, Outcome, Raw, assert_code, fresh_key, long, raw, take, ttl};
use contract_tests::servers::Server;

pub(super) fn trials(cases: &Cases) -> Vec<Trial> {
    vec![
        cases.trial("publishing::n8_the_record_has_a_name_with_nul_and_expires", stored),
        cases.trial("publishing::e2_a_record_that_cannot_be_read_is_replaced", foreign),
        cases.trial("publishing::f4_a_full_server_takes_the_publication_of_a_leader", full),
        cases.trial("publishing::locks_work_without_the_permission_to_publish", permission),
    ]
}

fn name(lease: &Lease) -> String {
    format!("syncguard:leader\0syncguard:{}", lease.key().as_str())
}

fn publication(lease: &Lease, value: &[u8]) -> Publication {
    Publication::new(lease.fence(), "node", value).unwrap()
}

async fn stored(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let lease = take(&backend, &fresh_key()).await?;
    let (name, publication) = (name(&lease), publication(&lease, b"10.0.0.3:8080"));
    assert!(backend.publish(&lease, &publication, ttl(Duration::from_secs(600))).await?);
    let fence = lease.fence().to_string();
    for (field, expected) in
        [("fence", fence.as_str()), ("candidate", "node"), ("value", "10.0.0.3:8080")]
    {
        assert_eq!(raw.text(&["HGET", &name, field]).await.unwrap(), expected);
    }
    assert_eq!(raw.number(&["HLEN", &name]).await, 3);
    let left = raw.number(&["PTTL", &name]).await;
    assert!((590_000..=600_000).contains(&left), "{left}");
    backend.withdraw(&lease).await?;
    assert_eq!(raw.number(&["EXISTS", &name]).await, 0);
    Ok(())
}

/// Each command stores something else under the name.
async fn foreign(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let long_name = "x".repeat(Publication::MAX_CANDIDATE_LEN + 1);
    let hash = |fence, candidate| {
        ["HSET", "NAME", "fence", fence, "candidate", candidate, "value", "v"].to_vec()
    };
    // Whether a fence is stored there that no lower one replaces.
    for (command, outranks) in [
        (vec!["SET", "NAME", "text"], false),
        (vec!["RPUSH", "NAME", "text"], false),
        (vec!["HSET", "NAME", "fence", "000000000000009"], true),
        (hash("9", "node"), false),
        (hash("0000000000000099", "node"), false),
        (hash("00000000000000x", "node"), false),
        (hash("000000000000009", "a\0b"), true),
        (hash("000000000000009", &long_name), true),
    ] {
        let lease = take(&backend, &fresh_key()).await?;
        let (name, publication) = (name(&lease), publication(&lease, b"value"));
        let words: Vec<_> =
            command.iter().map(|word| if *word == "NAME" { &name } else { *word }).collect();
        raw.run(&words).await;
        assert_code(backend.published(lease.key()).await, ErrorCode::Internal);
        let stored = backend.publish(&lease, &publication, long()).await?;
        assert_eq!(stored, !outranks, "{command:?}");
        if !outranks {
            assert_eq!(backend.published(lease.key()).await?, Some(publication));
            raw.run(&["DEL", &name]).await;
            raw.run(&words).await;
        }
        backend.withdraw(&lease).await?;
        assert_eq!(raw.number(&["EXISTS", &name]).await, i64::from(outranks), "{command:?}");
        raw.run(&["DEL", &name]).await;
    }
    let lease = take(&backend, &fresh_key()).await?;
    no_text(&raw, &name(&lease)).await;
    assert_code(backend.published(lease.key()).await, ErrorCode::Internal);
    Ok(())
}

/// Stores a candidate that is no UTF-8.
async fn no_text(raw: &Raw, name: &str) {
    let words = ["fence", "000000000000001", "value", "v", "candidate"].map(Value::from);
    let words = [Value::from(name)].into_iter().chain(words).chain([Value::from(&b"\xff"[..])]);
    let command = CustomCommand::new_static("HSET", ClusterHash::FirstKey, false);
    raw.0.custom::<Value, _>(command, words.collect()).await.unwrap();
}

async fn full(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &["--maxmemory-policy", "noeviction"]).await?;
    let raw = raw(&spare.url).await;
    let backend = RedisBackend::connect(&spare.url).await?;
    let lease = take(&backend, &fresh_key()).await?;
    // The server itself uses more than one byte.
    raw.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_code(take(&backend, &fresh_key()).await, ErrorCode::RateLimited);
    for value in [&b"1"[..], b"2"] {
        let publication = publication(&lease, value);
        assert!(backend.publish(&lease, &publication, long()).await?);
        assert_eq!(backend.published(lease.key()).await?, Some(publication));
    }
    backend.withdraw(&lease).await?;
    assert_eq!(backend.published(lease.key()).await?, None);
    Ok(())
}

async fn permission(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let raw = raw(&spare.url).await;
    let user = ["ACL", "SETUSER", "some", "on", ">pw", "~syncguard:*", "&*", "+@all"];
    raw.run(&[&user[..], &["-hset"]].concat()).await;
    let url = format!("redis://some:pw@127.0.0.1:{}", spare.port);
    let backend = RedisBackend::connect(&url).await?;
    let lease = take(&backend, &fresh_key()).await?;
    let publication = publication(&lease, b"value");
    raw.run(&["CONFIG", "RESETSTAT"]).await;
    let error = backend.publish(&lease, &publication, long()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AuthFailed, "{error}");
    assert_eq!(error.key(), Some(lease.key().fingerprint()));
    assert!(backend.extend(&lease, long()).await?.is_some());
    let accepted = raw.text(&["INFO", "stats"]).await.unwrap();
    assert!(accepted.contains("total_connections_received:0"), "a new connection was made");
    if raw.try_run(&["ACL", "DRYRUN", "default", "PING"]).await.is_ok() {
        let findings = backend.preflight().await;
        let level = |code: &str| {
            findings.iter().find(|finding| finding.code() == code).map(|finding| finding.level())
        };
        assert_eq!(level("permissions"), Some(Level::Fine), "{findings:?}");
        assert_eq!(level("publishing-permissions"), Some(Level::Warning), "{findings:?}");
    }
    // A reader that may not compare fences replaces nothing.
    raw.run(&["ACL", "SETUSER", "some", "+hset", "-hmget"]).await;
    assert_code(backend.publish(&lease, &publication, long()).await, ErrorCode::AuthFailed);
    assert_eq!(raw.number(&["EXISTS", &name(&lease)]).await, 0);
    assert!(backend.release(&lease).await?);
    Ok(())
}
