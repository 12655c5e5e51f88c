//! Stored records are the same bytes that other clients store, and foreign data stays untouched.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value as Json;
use syncguard_redis::fred::interfaces::ClientLike;
use syncguard_redis::fred::prelude::{Builder, Config, Value};
use syncguard_redis::fred::types::{ClusterHash, CustomCommand};
use syncguard_redis::{Acquired, Backend, ErrorCode, Fence, Key, Lease, RedisBackend, Timestamp};
use tokio::time::sleep;

use super::notifications::PATIENCE;
use super::{Cases, Outcome, Raw, assert_code, fresh_id, fresh_key, granted, long, take, ttl};
use contract_tests::servers::Server;

pub(super) fn trials(cases: &Cases) -> Vec<Trial> {
    vec![
        cases.trial("records::a_record_of_another_client_is_found", found),
        cases.trial("records::a_record_of_another_client_is_extended_and_released", extended),
        cases.trial("records::our_record_equals_the_record_of_another_client", written),
        cases.trial("records::an_extend_keeps_unknown_fields", unknown_fields),
        cases.trial(
            "records::t2_a_record_without_a_redis_expiry_lives_for_the_tolerance",
            tolerance,
        ),
        cases.trial("records::the_time_left_is_rounded_up", rounded_up),
        cases.trial("records::a6_an_exhausted_counter_is_refused_and_unchanged", exhausted),
        cases.trial("records::e1_an_error_for_an_impossible_fence_names_the_key", no_grant),
        cases.trial("records::e2_a_foreign_value_under_the_lock_key_is_internal", foreign_lock),
        cases.trial("records::f5_an_unreadable_record_blocks_only_while_it_is_live", unreadable),
        cases.trial("records::e2_a_foreign_value_under_the_index_key_is_internal", foreign_index),
        cases.trial("records::k3_a_key_that_equals_a_derived_name_is_refused", derived),
        cases.trial("records::k3_prefixes_keep_locks_apart", prefixes),
        cases.trial("records::a_client_and_a_pool_of_the_caller_work", own_clients),
    ]
}

pub(super) async fn connect(server: &Server) -> Result<(RedisBackend, Raw), String> {
    let backend = server
        .client(&async |url: String| {
            RedisBackend::builder().command_timeout(PATIENCE).connect(&url).await
        })
        .await?;
    let raw = server.client(&async |url: String| Raw::connect(&url).await).await?;
    Ok((backend, raw))
}

/// One lock as SyncGuard for TypeScript left it. Each has a prefix of its own, because trials run
/// at the same time.
struct Golden {
    backend: RedisBackend,
    raw: Raw,
    lock: String,
    lease: Lease,
    record: String,
    record_after_extend: String,
}

/// Stores every golden record unchanged, except for its prefix and expiry.
async fn golden(server: &Server) -> Result<Vec<Golden>, String> {
    let records: Json = serde_json::from_str(include_str!("../../golden/records.json")).unwrap();
    let mut all = Vec::new();
    for entry in records["redis"].as_array().unwrap() {
        let prefix = format!("golden-{}", fresh_id().as_str());
        let options = RedisBackend::builder().key_prefix(&prefix);
        let backend =
            server.client(&async |url: String| options.clone().connect(&url).await).await?;
        let raw = server.client(&async |url: String| Raw::connect(&url).await).await?;
        let key = Key::new(entry["key"].as_str().unwrap()).unwrap();
        let stored = &entry["stored"];
        let lock = format!("syncguard:{}", key.as_str());
        for (name, stored) in stored.as_object().unwrap() {
            let name = name.replace("syncguard", &prefix);
            let value =
                stored["value"].as_str().unwrap().replace("syncguard:", &format!("{prefix}:"));
            raw.run(&["SET", &name, &value]).await;
            if stored["pttl_within"].is_array() {
                raw.run(&["PEXPIRE", &name, "600000"]).await;
            }
        }
        // The expiry in the record has passed. Move it, as an extend would.
        let mut record = stored[&lock]["value"].as_str().unwrap().to_owned();
        let mut record_after_extend =
            stored[&lock]["value_after_extend"].as_str().unwrap().to_owned();
        for text in [&mut record, &mut record_after_extend] {
            let old = serde_json::from_str::<Json>(text).unwrap()["expiresAtMs"].to_string();
            *text = text.replace(&old, "4102444800000");
        }
        let lock = lock.replace("syncguard", &prefix);
        raw.run(&["SET", &lock, &record, "PX", "600000"]).await;
        let acquire = &entry["acquire"];
        let lease = Lease::new(
            key,
            acquire["lockId"].as_str().unwrap().parse().unwrap(),
            acquire["fence"].as_str().unwrap().parse().unwrap(),
            Timestamp::from_millis(4_102_444_800_000),
        );
        all.push(Golden { backend, raw, lock, lease, record, record_after_extend });
    }
    assert_eq!(all.len(), 3);
    Ok(all)
}

async fn found(server: Arc<Server>) -> Outcome {
    for golden in golden(&server).await? {
        let Golden { backend, raw, lock, lease, .. } = &golden;
        for record in [&golden.record, &golden.record_after_extend] {
            raw.run(&["SET", lock, record, "PX", "600000"]).await;
            let found = backend.get(lease.key()).await?.unwrap();
            assert_eq!(found.key(), lease.key());
            assert_eq!(found.id(), lease.id());
            assert_eq!(found.fence(), lease.fence());
            assert_eq!(found.expires_at(), lease.expires_at());
            let stored: Json = serde_json::from_str(record)?;
            assert_eq!(Some(found.acquired_at().as_millis()), stored["acquiredAtMs"].as_u64());
            assert_eq!(backend.find(lease.id()).await?.unwrap(), found);
            let attempt = backend.acquire(lease.key(), &fresh_id(), long()).await?;
            assert!(matches!(attempt, Acquired::Held { remaining: Some(_) }));
        }
    }
    Ok(())
}

async fn extended(server: Arc<Server>) -> Outcome {
    for golden in golden(&server).await? {
        let Golden { backend, raw, lock, lease, .. } = &golden;
        for record in [&golden.record, &golden.record_after_extend] {
            for by_id in [false, true] {
                raw.run(&["SET", lock, record, "PX", "600000"]).await;
                let index =
                    format!("{}:id:{}", lock.split(':').next().unwrap(), lease.id().as_str());
                raw.run(&["SET", &index, lock, "PX", "600000"]).await;
                let extended = match by_id {
                    false => backend.extend(lease, long()).await?.unwrap(),
                    true => backend.extend_by_id(lease.id(), long()).await?.unwrap(),
                };
                assert_eq!(extended.fence(), lease.fence());
                // Only the expiry may change.
                let mut now: Json = serde_json::from_str(&raw.text(&["GET", lock]).await.unwrap())?;
                let before: Json = serde_json::from_str(record)?;
                assert_eq!(now["expiresAtMs"].as_u64(), Some(extended.expires_at().as_millis()));
                now["expiresAtMs"] = before["expiresAtMs"].clone();
                assert_eq!(now, before);
                for name in [lock.as_str(), &index] {
                    let left = raw.number(&["PTTL", name]).await;
                    assert!((3_000_000..=3_600_000).contains(&left), "{left}");
                }
                assert!(match by_id {
                    false => backend.release(&extended).await?,
                    true => backend.release_by_id(lease.id()).await?,
                });
                assert_eq!(raw.number(&["EXISTS", lock, &index]).await, 0);
            }
        }
        // The next grant continues the fences of the other client.
        assert_eq!(take(backend, lease.key()).await?.fence().get(), lease.fence().get() + 1);
    }
    Ok(())
}

async fn written(server: Arc<Server>) -> Outcome {
    for golden in golden(&server).await? {
        let Golden { backend, raw, lock, lease, record, .. } = &golden;
        assert!(backend.release(lease).await?);
        let prefix = lock.split(':').next().unwrap();
        let counter = format!("{prefix}:fence:{lock}");
        raw.run(&["SET", &counter, "1"]).await;
        let ours =
            granted(backend.acquire(lease.key(), lease.id(), ttl(Duration::from_secs(600))).await?);

        let stored = raw.text(&["GET", lock]).await.unwrap();
        let digits = |text: &str, field: &str| {
            serde_json::from_str::<Json>(text).unwrap()[field].to_string()
        };
        // Byte for byte, except for the times.
        let mut expected = record.clone();
        for field in ["acquiredAtMs", "expiresAtMs"] {
            expected = expected.replace(&digits(record, field), &digits(&stored, field));
        }
        assert_eq!(stored, expected);
        assert_eq!(digits(&stored, "expiresAtMs"), ours.expires_at().as_millis().to_string());
        let acquired_at: u64 = digits(&stored, "acquiredAtMs").parse()?;
        assert_eq!(ours.expires_at().as_millis() - acquired_at, 600_000);

        let index = format!("{prefix}:id:{}", lease.id().as_str());
        assert_eq!(raw.text(&["GET", &index]).await.as_ref(), Some(lock));
        assert_eq!(raw.text(&["GET", &counter]).await.unwrap(), "2");
        assert_eq!(raw.number(&["PTTL", &counter]).await, -1);
        for name in [lock.as_str(), &index] {
            let left = raw.number(&["PTTL", name]).await;
            assert!((500_000..=600_000).contains(&left), "{left}");
        }
    }
    Ok(())
}

async fn unknown_fields(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let lease = take(&backend, &fresh_key()).await?;
    let lock = format!("syncguard:{}", lease.key().as_str());
    let stored = raw.text(&["GET", &lock]).await.unwrap();
    raw.run(&["SET", &lock, &stored.replacen('{', r#"{"note":{"a":[1,"x"]},"#, 1)]).await;
    backend.extend(&lease, long()).await?.unwrap();
    let stored: Json = serde_json::from_str(&raw.text(&["GET", &lock]).await.unwrap())?;
    assert_eq!(stored["note"], serde_json::json!({"a": [1, "x"]}));
    assert_eq!(stored.as_object().unwrap().len(), 6);
    assert!(backend.release(&lease).await?);
    Ok(())
}

/// Returns a record that this backend did not write: in our JSON style, and in another one.
pub(super) fn by_hand(lease: &Lease, expires_at: i64) -> [String; 2] {
    let (key, id) = (lease.key().as_str(), lease.id().as_str());
    [
        format!(
            r#"{{"key":"{key}","lockId":"{id}","fence":"000000000000007","acquiredAtMs":1795451239701,"expiresAtMs":{expires_at}}}"#
        ),
        format!(
            r#"{{ "expiresAtMs": {expires_at}.0, "lockId": "{id}", "acquiredAtMs": 1.795e12, "fence": "000000000000007", "key": "{key}" }}"#
        ),
    ]
}

pub(super) fn made_up_lease() -> Lease {
    let fence = Fence::new(7).unwrap();
    Lease::new(fresh_key(), fresh_id(), fence, Timestamp::from_millis(1))
}

async fn tolerance(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    for (offset, live) in [(60_000, true), (-60_000, false)] {
        for style in 0..2 {
            let lease = made_up_lease();
            let (key, id) = (lease.key(), lease.id());
            let lock = format!("syncguard:{}", key.as_str());
            let time = raw.run(&["TIME"]).await.into_array();
            let now = time[0].as_i64().unwrap() * 1_000;
            let record = &by_hand(&lease, now + offset)[style];
            raw.run(&["SET", &lock, record]).await;
            raw.run(&["SET", &format!("syncguard:id:{}", id.as_str()), &lock]).await;
            assert_eq!(backend.get(key).await?.is_some(), live);
            assert_eq!(backend.find(id).await?.is_some(), live);
            assert_eq!(backend.extend(&lease, long()).await?.is_some(), live);
            assert_eq!(backend.extend_by_id(id, long()).await?.is_some(), live);
            let attempt = backend.acquire(key, &fresh_id(), long()).await?;
            assert_eq!(matches!(attempt, Acquired::Held { .. }), live);
            assert_eq!(backend.release(&lease).await?, live);
        }
    }
    Ok(())
}

/// Returns the server's clock in milliseconds.
async fn now(raw: &Raw) -> u64 {
    let [seconds, micros] = &raw.run(&["TIME"]).await.into_array()[..] else { panic!() };
    seconds.as_u64().unwrap() * 1_000 + micros.as_u64().unwrap() / 1_000
}

async fn rounded_up(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let lease = made_up_lease();
    let lock = format!("syncguard:{}", lease.key().as_str());
    let record = by_hand(&lease, 4_102_444_800_000)[0].replace("00000}", "00000.5}");
    raw.run(&["SET", &lock, &record]).await;
    // Repeat until the attempt starts and ends within one millisecond.
    let (time, remaining) = loop {
        let before = now(&raw).await;
        let attempt = backend.acquire(lease.key(), &fresh_id(), long()).await?;
        let Acquired::Held { remaining } = attempt else { panic!("a held key was granted") };
        if now(&raw).await == before {
            break (before, remaining);
        }
    };
    assert_eq!(remaining, Some(Duration::from_millis(4_102_444_800_001 - time)));
    Ok(())
}

async fn exhausted(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let (key, id) = (fresh_key(), fresh_id());
    let lock = format!("syncguard:{}", key.as_str());
    let counter = format!("syncguard:fence:{lock}");
    let index = format!("syncguard:id:{}", id.as_str());
    let beyond = ["900000000000000", "900000000000001", "9007199254740993", "9223372036854775807"];
    for bad in beyond.into_iter().chain(["-5", "text", "1.5", ""]) {
        raw.run(&["SET", &counter, bad]).await;
        assert_code(backend.acquire(&key, &id, long()).await, ErrorCode::Internal);
        assert_eq!(raw.text(&["GET", &counter]).await.unwrap(), bad);
        assert_eq!(raw.number(&["EXISTS", &lock, &index]).await, 0, "{bad}");
    }
    raw.run(&["DEL", &counter]).await;
    raw.run(&["RPUSH", &counter, "x"]).await;
    assert_code(backend.acquire(&key, &id, long()).await, ErrorCode::Internal);
    assert_eq!(raw.number(&["EXISTS", &lock, &index]).await, 0);

    raw.run(&["SET", &counter, "899999999999999"]).await;
    let lease = granted(backend.acquire(&key, &id, long()).await?);
    assert_eq!(lease.fence(), Fence::MAX_GRANTED);
    Ok(())
}

async fn no_grant(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let lease = made_up_lease();
    let lock = format!("syncguard:{}", lease.key().as_str());
    let record = &by_hand(&lease, 4_102_444_800_000)[0];
    raw.run(&["SET", &lock, &record.replace("000000000000007", "900000000000001")]).await;
    let error = backend.acquire(lease.key(), lease.id(), long()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Internal);
    assert_eq!(error.key(), Some(lease.key().fingerprint()));
    Ok(())
}

/// Checks that every operation on this lock is refused and leaves all stored names unchanged.
async fn all_refused(backend: &RedisBackend, raw: &Raw, lease: &Lease, names: &[&str]) {
    let (key, id) = (lease.key(), lease.id());
    let mut before = Vec::new();
    for name in names {
        before.push(raw.run(&["DUMP", name]).await);
    }
    let internal = ErrorCode::Internal;
    assert_code(backend.acquire(key, id, long()).await, internal);
    assert_code(backend.extend(lease, long()).await, internal);
    assert_code(backend.release(lease).await, internal);
    assert_code(backend.extend_by_id(id, long()).await, internal);
    assert_code(backend.release_by_id(id).await, internal);
    assert_code(backend.find(id).await, internal);
    assert_code(backend.handoff(lease, &fresh_id(), long()).await, internal);
    for (name, before) in names.iter().zip(before) {
        assert_eq!(raw.run(&["DUMP", name]).await, before);
    }
}

async fn foreign_lock(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let lease = made_up_lease();
    let id = lease.id().as_str();
    let lock = format!("syncguard:{}", lease.key().as_str());
    let index = format!("syncguard:id:{id}");
    let counter = format!("syncguard:fence:{lock}");
    raw.run(&["SET", &index, &lock]).await;

    let mut values = vec![
        vec!["RPUSH".to_owned(), lock.clone(), "x".to_owned()],
        vec!["HSET".to_owned(), lock.clone(), "key".to_owned(), "x".to_owned()],
        vec!["SET".to_owned(), lock.clone(), String::new()],
        vec!["SET".to_owned(), lock.clone(), "text".to_owned()],
        vec!["SET".to_owned(), lock.clone(), "17".to_owned()],
    ];
    let good = &by_hand(&lease, 4_102_444_800_000)[0];
    for (part, instead) in [
        (r#""acquiredAtMs":1795451239701,"#, ""),
        (&format!("\"{id}\""), "7"),
        (id, "short"),
        ("\"000000000000007\"", "7"),
        ("000000000000007", "7"),
        ("000000000000007", "00000000000000x"),
        ("4102444800000}", "\"4102444800000\"}"),
        ("4102444800000}", "null}"),
        ("4102444800000}", "nan}"),
        ("4102444800000}", "-4102444800000}"),
        ("4102444800000}", "41024448000000000000000000}"),
        // Invalid JSON that the decoder of the scripts accepts, and impossible times.
        ("4102444800000}", "0004102444800000}"),
        ("4102444800000}", "+4102444800000}"),
        ("4102444800000}", "0x3bb2cc3d800}"),
        (":1795451239701", ":0001795451239701"),
        (":1795451239701", ": 01795451239701"),
        (":1795451239701", ":179545123970100000"),
        (":1795451239701", ":1e400"),
        ("4102444800000}", "4102444800000"),
        ("4102444800000}", "4102444800000}}"),
        ("{\"key", "x{\"key"),
        ("{\"key", "[{\"key"),
    ] {
        let bad = good.replacen(part, instead, 1);
        assert_ne!(&bad, good);
        values.push(vec!["SET".to_owned(), lock.clone(), bad]);
    }
    for value in values {
        raw.run(&["DEL", &lock]).await;
        raw.run(&value.iter().map(String::as_str).collect::<Vec<_>>()).await;
        all_refused(&backend, &raw, &lease, &[&lock, &index, &counter]).await;
        assert_code(backend.get(lease.key()).await, ErrorCode::Internal);
        let other = backend.acquire(lease.key(), &fresh_id(), long()).await;
        assert_code(other, ErrorCode::Internal);
        assert_eq!(raw.number(&["EXISTS", &counter]).await, 0);
    }
    Ok(())
}

async fn unreadable(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    for expires_at in [4_102_444_800_000, 1_795_451_239_701] {
        let live = expires_at > 2_000_000_000_000_i64;
        for (part, instead) in [
            (r#""acquiredAtMs":1795451239701,"#, ""),
            ("000000000000007", "0000000000000007"),
            (r#""lockId""#, r#""id""#),
            (r#""key""#, r#""name""#),
        ] {
            let lease = made_up_lease();
            let (key, id) = (lease.key(), lease.id());
            let lock = format!("syncguard:{}", key.as_str());
            let record = by_hand(&lease, expires_at)[0].replacen(part, instead, 1);
            // Nothing removes it: it has no expiry on the server.
            raw.run(&["SET", &lock, &record]).await;
            raw.run(&["SET", &format!("syncguard:id:{}", id.as_str()), &lock]).await;
            if live {
                assert_code(backend.get(key).await, ErrorCode::Internal);
                assert_code(backend.acquire(key, &fresh_id(), long()).await, ErrorCode::Internal);
                continue;
            }
            assert!(backend.get(key).await?.is_none());
            assert!(backend.find(id).await?.is_none());
            assert!(backend.extend(&lease, long()).await?.is_none());
            assert!(backend.extend_by_id(id, long()).await?.is_none());
            assert!(backend.handoff(&lease, &fresh_id(), long()).await?.is_none());
            assert!(!backend.release(&lease).await?);
            assert!(!backend.release_by_id(id).await?);
            assert_eq!(raw.text(&["GET", &lock]).await.unwrap(), record);
            let next = take(&backend, key).await?;
            assert!(backend.release(&next).await?);
        }
    }
    Ok(())
}

async fn foreign_index(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let lease = made_up_lease();
    let lock = format!("syncguard:{}", lease.key().as_str());
    let index = format!("syncguard:id:{}", lease.id().as_str());
    let counter = format!("syncguard:fence:{lock}");
    for value in [["RPUSH", &index, "x"], ["SET", &index, "text"]] {
        // First with a free key, then with a key that this id holds.
        raw.run(&["DEL", &lock, &index]).await;
        raw.run(&value).await;
        let attempt = backend.acquire(lease.key(), lease.id(), long()).await;
        assert_code(attempt, ErrorCode::Internal);
        assert_eq!(raw.number(&["EXISTS", &lock, &counter]).await, 0);
        raw.run(&["SET", &lock, &by_hand(&lease, 4_102_444_800_000)[0]]).await;
        all_refused(&backend, &raw, &lease, &[&lock, &index, &counter]).await;
    }
    // Without an index entry the lease still works, and an extend restores the entry.
    raw.run(&["DEL", &index]).await;
    assert!(backend.find(lease.id()).await?.is_none());
    assert!(backend.extend(&lease, long()).await?.is_some());
    assert!(backend.find(lease.id()).await?.is_some());
    raw.run(&["DEL", &index]).await;
    assert!(backend.release(&lease).await?);
    Ok(())
}

async fn derived(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let lease = take(&backend, &fresh_key()).await?;
    let counter = format!("fence:syncguard:{}", lease.key().as_str());
    for name in [format!("id:{}", lease.id().as_str()), counter.clone()] {
        let lease =
            Lease::new(Key::new(&name).unwrap(), fresh_id(), lease.fence(), lease.expires_at());
        let invalid = ErrorCode::InvalidArgument;
        assert_code(backend.acquire(lease.key(), lease.id(), long()).await, invalid);
        assert_code(backend.extend(&lease, long()).await, invalid);
        assert_code(backend.release(&lease).await, invalid);
        assert_code(backend.get(lease.key()).await, invalid);
    }
    assert_eq!(raw.text(&["GET", &format!("syncguard:{counter}")]).await.unwrap(), "1");
    assert!(backend.release(&lease).await?);
    Ok(())
}

async fn prefixes(server: Arc<Server>) -> Outcome {
    let (one, _) = connect(&server).await?;
    let two = RedisBackend::builder().key_prefix("other");
    let two = server.client(&async |url: String| two.clone().connect(&url).await).await?;
    let lease = take(&one, &fresh_key()).await?;
    assert!(two.get(lease.key()).await?.is_none());
    assert!(two.find(lease.id()).await?.is_none());
    assert!(!two.release(&lease).await?);
    assert!(!two.release_by_id(lease.id()).await?);
    let other = take(&two, lease.key()).await?;
    assert!(two.release(&other).await?);
    assert!(one.release(&lease).await?);
    Ok(())
}

async fn own_clients(server: Arc<Server>) -> Outcome {
    let (ours, raw) = connect(&server).await?;
    let own = server.client(&async |url: String| -> Result<_, Box<dyn std::error::Error>> {
        let builder = Builder::from_config(Config::from_url(&url)?);
        let (client, pool) = (builder.build()?, builder.build_pool(3)?);
        client.init().await?;
        Ok((client, pool))
    });
    let (client, pool) = own.await?;
    for backend in [RedisBackend::new(client.clone())?, RedisBackend::new(pool)?] {
        let lease = take(&backend, &fresh_key()).await?;
        assert!(ours.get(lease.key()).await?.is_some());
        // A pool spreads these over its connections.
        for _ in 0..5 {
            assert!(backend.extend(&lease, long()).await?.is_some());
        }
        assert!(backend.release(&lease).await?);
    }
    // A command that blocks the client of the caller delays no lock.
    let backend = RedisBackend::new(client.clone())?;
    let blocking = CustomCommand::new_static("BLPOP", ClusterHash::FirstKey, true);
    let list = fresh_id();
    let blocked = client.custom::<Value, _>(blocking, vec![list.as_str(), "0"]);
    let (blocked, lease) = tokio::join!(blocked, async {
        sleep(Duration::from_millis(100)).await;
        let lease = take(&backend, &fresh_key()).await;
        raw.run(&["RPUSH", list.as_str(), "goes on"]).await;
        lease
    });
    assert!(!blocked?.is_null());
    assert!(backend.release(&lease?).await?);
    // Dropping the backend does not close the client of the caller, and the backend does not need it.
    let _: String = client.ping(None).await?;
    client.quit().await?;
    let backend = RedisBackend::new(client)?;
    take(&backend, &fresh_key()).await?;
    Ok(())
}
