//! What a handoff stores, and what a failed handoff leaves unchanged.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use syncguard_redis::{
    Acquired, Backend, ErrorCode, Fence, Key, Lease, LockId, RedisBackend, Timestamp,
};

use super::records::{by_hand, connect, made_up_lease};
use super::{Cases, Outcome, Raw, assert_code, fresh_id, fresh_key, long, take, ttl};
use contract_tests::servers::Server;

pub(super) fn trials(cases: &Cases) -> Vec<Trial> {
    vec![
        cases.trial("handoff::handoff_writes_the_same_data_as_a_grant", written),
        cases.trial("handoff::handoff_of_a_record_in_another_json_style", other_json_style),
        cases.trial("handoff::handoff_to_the_same_id_raises_the_fence", same_id),
        cases.trial("handoff::handoff_repeated_returns_its_own_grant", sent_again),
        cases.trial("handoff::r1_handoff_of_an_ended_lease_changes_nothing", gone),
        cases.trial("handoff::a6_an_exhausted_counter_leaves_the_old_lease", exhausted),
        cases.trial("handoff::e2_an_index_key_in_use_leaves_the_old_lease", index_in_use),
        cases.trial("handoff::handoff_overwrites_an_index_key_that_was_left_behind", left_behind),
    ]
}

fn lock(key: &Key) -> String {
    format!("syncguard:{}", key.as_str())
}

fn index(id: &LockId) -> String {
    format!("syncguard:id:{}", id.as_str())
}

fn counter(key: &Key) -> String {
    format!("syncguard:fence:{}", lock(key))
}

/// Checks that the new lease is stored as if it had been acquired, and that nothing is left of the
/// old one.
async fn assert_handed_off(
    backend: &RedisBackend,
    raw: &Raw,
    old: &Lease,
    id: &LockId,
) -> Result<Lease, Box<dyn std::error::Error + Send + Sync>> {
    let (key, ttl) = (old.key(), ttl(Duration::from_secs(600)));
    let lease = backend.handoff(old, id, ttl).await?.unwrap();
    assert_eq!((lease.key(), lease.id()), (key, id));

    let record = backend.get(key).await?.unwrap();
    assert_eq!((record.id(), record.fence()), (id, lease.fence()));
    assert_eq!(record.expires_at(), lease.expires_at());
    assert_eq!(record.expires_at().since(record.acquired_at()), Duration::from_secs(600));
    assert_eq!(
        raw.text(&["GET", &lock(key)]).await.unwrap(),
        format!(
            r#"{{"key":"{}","lockId":"{}","fence":"{}","acquiredAtMs":{},"expiresAtMs":{}}}"#,
            key.as_str(),
            id.as_str(),
            lease.fence(),
            record.acquired_at().as_millis(),
            record.expires_at().as_millis(),
        )
    );
    assert_eq!(raw.text(&["GET", &index(id)]).await.unwrap(), lock(key));
    for name in [lock(key), index(id)] {
        let left = raw.number(&["PTTL", &name]).await;
        assert!((500_000..=600_000).contains(&left), "{left}");
    }
    let fence = lease.fence().get().to_string();
    assert_eq!(raw.text(&["GET", &counter(key)]).await.unwrap(), fence);
    assert_eq!(raw.number(&["PTTL", &counter(key)]).await, -1);
    if id != old.id() {
        assert_eq!(raw.number(&["EXISTS", &index(old.id())]).await, 0);
        assert!(!backend.release(old).await?);
        assert!(backend.extend(old, long()).await?.is_none());
    }
    Ok(lease)
}

async fn written(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let mut lease = take(&backend, &fresh_key()).await?;
    for fence in 2..5 {
        lease = assert_handed_off(&backend, &raw, &lease, &fresh_id()).await?;
        assert_eq!(lease.fence().get(), fence);
    }
    assert!(backend.release(&lease).await?);
    assert_eq!(take(&backend, lease.key()).await?.fence().get(), 5);
    Ok(())
}

async fn other_json_style(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    for (style, with_index) in [(0, true), (1, true), (1, false)] {
        let lease = made_up_lease();
        raw.run(&["SET", &lock(lease.key()), &by_hand(&lease, 4_102_444_800_000)[style]]).await;
        raw.run(&["SET", &counter(lease.key()), "7"]).await;
        if with_index {
            raw.run(&["SET", &index(lease.id()), &lock(lease.key())]).await;
        }
        let next = assert_handed_off(&backend, &raw, &lease, &fresh_id()).await?;
        assert_eq!(next.fence().get(), 8);
    }
    Ok(())
}

async fn same_id(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let lease = take(&backend, &fresh_key()).await?;
    let next = assert_handed_off(&backend, &raw, &lease, lease.id()).await?;
    assert_eq!(next.fence().get(), 2);
    assert_eq!(backend.find(lease.id()).await?.unwrap().fence(), next.fence());
    assert!(backend.release(&next).await?);
    Ok(())
}

/// The value of each entry that belongs to a lock or to the next id, and when it expires.
#[derive(Debug)]
struct Stored(Vec<(Option<String>, i64)>);

impl PartialEq for Stored {
    /// Compares the times of expiry to 100 ms, because a server says only how much time is left.
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|((value, ends), (other, other_ends))| {
            value == other && (ends - other_ends).abs() < 100
        })
    }
}

async fn stored(raw: &Raw, lease: &Lease, next: &LockId) -> Stored {
    // One script, so that no time passes between the two.
    let ends = "local time, left = redis.call('TIME'), redis.call('PTTL', KEYS[1]); \
                if left < 0 then return left * 1000000 end; \
                return time[1] * 1000 + math.floor(time[2] / 1000) + left";
    let names = [lock(lease.key()), index(lease.id()), counter(lease.key()), index(next)];
    let mut all = Vec::new();
    for name in names {
        let value = raw.run(&["DUMP", &name]).await;
        let value = value.as_bytes().map(|bytes| format!("{bytes:?}"));
        all.push((value, raw.number(&["EVAL", ends, "1", &name]).await));
    }
    Stored(all)
}

async fn gone(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let (released, replaced, unknown) =
        (take(&backend, &fresh_key()).await?, take(&backend, &fresh_key()).await?, made_up_lease());
    assert!(backend.release(&released).await?);
    assert!(backend.release(&replaced).await?);
    let holder = take(&backend, replaced.key()).await?;
    // A dead lease whose record still exists.
    let dead = made_up_lease();
    for (style, expired) in [(0, 1_795_451_239_701), (1, 1_795_451_239_701)] {
        raw.run(&["SET", &lock(dead.key()), &by_hand(&dead, expired)[style]]).await;
        raw.run(&["SET", &index(dead.id()), &lock(dead.key())]).await;
        for lease in [&released, &replaced, &unknown, &dead] {
            for next in [fresh_id(), lease.id().clone()] {
                let before = stored(&raw, lease, &next).await;
                assert!(backend.handoff(lease, &next, long()).await?.is_none());
                assert_eq!(stored(&raw, lease, &next).await, before);
            }
        }
    }
    assert!(backend.release(&holder).await?);
    Ok(())
}

/// Checks that the handoff is refused, that nothing changes, and that the old lease is still live.
async fn assert_refused(
    backend: &RedisBackend,
    raw: &Raw,
    lease: &Lease,
    next: &LockId,
) -> Outcome {
    let before = stored(raw, lease, next).await;
    assert_code(
        backend.handoff(lease, next, ttl(Duration::from_secs(60))).await,
        ErrorCode::Internal,
    );
    assert_eq!(stored(raw, lease, next).await, before);
    assert_eq!(backend.find(lease.id()).await?.unwrap().fence(), lease.fence());
    let attempt = backend.acquire(lease.key(), &fresh_id(), long()).await?;
    assert!(matches!(attempt, Acquired::Held { .. }));
    Ok(())
}

async fn exhausted(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let lease = take(&backend, &fresh_key()).await?;
    let counter = counter(lease.key());
    let beyond = ["900000000000000", "900000000000001", "9223372036854775807"];
    for bad in beyond.into_iter().chain(["-5", "text"]) {
        raw.run(&["SET", &counter, bad]).await;
        for next in [fresh_id(), lease.id().clone()] {
            assert_refused(&backend, &raw, &lease, &next).await?;
        }
    }
    raw.run(&["SET", &counter, "899999999999999"]).await;
    let next = backend.handoff(&lease, &fresh_id(), long()).await?.unwrap();
    assert_eq!(next.fence(), Fence::MAX_GRANTED);
    Ok(())
}

/// The client itself repeats a command when the topology of a cluster changes.
async fn sent_again(server: Arc<Server>) -> Outcome {
    let (backend, _) = connect(&server).await?;
    let (lease, next) = (take(&backend, &fresh_key()).await?, fresh_id());
    let granted = backend.handoff(&lease, &next, long()).await?.unwrap();
    assert_eq!(backend.handoff(&lease, &next, long()).await?.unwrap(), granted);
    assert!(backend.handoff(&lease, &fresh_id(), long()).await?.is_none());
    assert!(backend.release(&granted).await?);
    assert!(backend.handoff(&lease, &next, long()).await?.is_none());
    Ok(())
}

async fn index_in_use(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let (lease, other) = (take(&backend, &fresh_key()).await?, take(&backend, &fresh_key()).await?);
    assert_refused(&backend, &raw, &lease, other.id()).await?;
    assert_eq!(backend.find(other.id()).await?.unwrap().key(), other.key());
    for value in [["RPUSH", "x"], ["SET", "text"]] {
        let next = fresh_id();
        raw.run(&[value[0], &index(&next), value[1]]).await;
        assert_refused(&backend, &raw, &lease, &next).await?;
    }
    // The index entry of the old lease may be missing, but it must not hold another value.
    raw.run(&["SET", &index(lease.id()), "text"]).await;
    let before = stored(&raw, &lease, other.id()).await;
    let refused = backend.handoff(&lease, &fresh_id(), long()).await;
    assert_code(refused, ErrorCode::Internal);
    assert_eq!(stored(&raw, &lease, other.id()).await, before);
    Ok(())
}

async fn left_behind(server: Arc<Server>) -> Outcome {
    let (backend, raw) = connect(&server).await?;
    let lease = take(&backend, &fresh_key()).await?;
    let next = fresh_id();
    raw.run(&["SET", &index(&next), &lock(lease.key()), "PX", "5000"]).await;
    assert_handed_off(&backend, &raw, &lease, &next).await?;

    // A lock must not use the storage name of a fence counter.
    let counter = Key::new(&format!("fence:{}", lock(lease.key()))).unwrap();
    let fence = Fence::new(7).unwrap();
    let bad = Lease::new(counter, fresh_id(), fence, Timestamp::from_millis(1));
    let refused = backend.handoff(&bad, &fresh_id(), long()).await;
    assert_code(refused, ErrorCode::InvalidArgument);
    Ok(())
}
