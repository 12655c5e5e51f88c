//! What a preflight finds on real servers.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use syncguard_redis::{Backend, Finding, Level, RedisBackend};
use tokio::time::{Instant, timeout};

use super::faults::{LIMIT, one_slot_cluster, options, spare};
use super::{Cases, Outcome, Raw, raw};
use contract_tests::ports::free_port;
use contract_tests::servers::Server;

pub(super) fn trials(cases: &Cases) -> Vec<Trial> {
    vec![
        cases.trial("preflight::a_good_server_has_nothing_to_fear", good),
        cases.trial("preflight::what_endangers_locks_is_found", bad),
        cases.trial("preflight::what_may_not_be_asked_is_unknown", unknown),
        cases.trial("preflight::a_cluster_without_a_hash_tag_is_an_error", cluster),
        cases.trial("preflight::a_server_that_hangs_costs_one_timeout", hangs),
    ]
}

#[track_caller]
fn assert_level(findings: &[Finding], code: &str, level: Level) {
    let finding = findings.iter().find(|finding| finding.code() == code);
    let finding = finding.unwrap_or_else(|| panic!("no {code} in {findings:?}"));
    assert_eq!(finding.level(), level, "{finding}");
    assert_eq!(finding.advice().is_empty(), level == Level::Fine, "{finding}");
}

/// Redis has `ACL DRYRUN` since version 7.
async fn has_dryrun(raw: &Raw) -> bool {
    raw.try_run(&["ACL", "DRYRUN", "default", "PING"]).await.is_ok()
}

async fn good(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &["--appendonly", "yes", "--appendfsync", "always"]).await?;
    let raw = raw(&spare.url).await;
    let permissions = if has_dryrun(&raw).await { Level::Fine } else { Level::Unknown };
    let findings = RedisBackend::connect(&spare.url).await?.preflight().await;
    for code in ["version", "cluster", "role", "eviction-policy", "persistence", "min-replicas"] {
        assert_level(&findings, code, Level::Fine);
    }
    assert_level(&findings, "permissions", permissions);
    assert_level(&findings, "publishing-permissions", permissions);
    assert_level(&findings, "notification-permissions", permissions);
    assert_eq!(findings.len(), 9);
    // It only asks.
    assert_eq!(raw.number(&["DBSIZE"]).await, 0);
    let quiet = RedisBackend::builder().notifications(false).connect(&spare.url).await?;
    assert_eq!(quiet.preflight().await.len(), 8);
    Ok(())
}

async fn bad(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &["--maxmemory-policy", "allkeys-lru"]).await?;
    let raw = raw(&spare.url).await;
    raw.run(&["ACL", "SETUSER", "some", "on", ">pw", "~*", "+@all", "-incr", "-publish"]).await;
    let url = format!("redis://some:pw@127.0.0.1:{}", spare.port);
    let backend = RedisBackend::connect(&url).await?;
    let findings = backend.preflight().await;
    assert_level(&findings, "eviction-policy", Level::Warning);
    assert_level(&findings, "persistence", Level::Warning);
    if has_dryrun(&raw).await {
        assert_level(&findings, "permissions", Level::Error);
        let incr = findings.iter().any(|finding| finding.fact().contains("incr"));
        assert!(incr, "{findings:?}");
        assert_level(&findings, "notification-permissions", Level::Warning);
    }

    raw.run(&["CONFIG", "SET", "maxmemory", "100mb"]).await;
    raw.run(&["CONFIG", "SET", "appendonly", "yes"]).await;
    raw.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let findings = backend.preflight().await;
    assert_level(&findings, "eviction-policy", Level::Error);
    assert_level(&findings, "role", Level::Error);
    // The append-only file is synced every second by default.
    assert_level(&findings, "persistence", Level::Warning);
    Ok(())
}

async fn unknown(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let raw = raw(&spare.url).await;
    raw.run(&["ACL", "SETUSER", "some", "on", ">pw", "~*", "+@all", "-info", "-acl"]).await;
    let url = format!("redis://some:pw@127.0.0.1:{}", spare.port);
    let findings = RedisBackend::connect(&url).await?.preflight().await;
    assert_eq!(findings.len(), 9, "{findings:?}");
    for finding in &findings {
        assert_eq!(finding.level(), Level::Unknown, "{finding}");
        assert!(!finding.advice().is_empty(), "{finding}");
    }
    Ok(())
}

async fn cluster(server: Arc<Server>) -> Outcome {
    let port = free_port();
    let _node = one_slot_cluster(&server, port, port).await?;
    let unaware = RedisBackend::connect(&format!("redis://127.0.0.1:{port}")).await?;
    assert_level(&unaware.preflight().await, "cluster", Level::Error);
    let url = format!("redis-cluster://127.0.0.1:{port}");
    let backend = RedisBackend::builder().key_prefix("{syncguard}").connect(&url).await?;
    assert_level(&backend.preflight().await, "cluster", Level::Fine);
    Ok(())
}

async fn hangs(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    raw(&spare.url).await;
    let backend = options().connect(&spare.url).await?;
    spare.pause().await?;
    let start = Instant::now();
    let findings = timeout(Duration::from_secs(30), backend.preflight()).await?;
    assert!(start.elapsed() < LIMIT * 2, "{:?}", start.elapsed());
    assert!(findings.iter().any(|finding| finding.level() == Level::Unknown), "{findings:?}");
    spare.container.unpause().await?;
    Ok(())
}
