//! Settings of the backend and of the server: schemas, logs, errors that name the cause, and what a
//! preflight finds.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use contract_tests::ports::free_port;
use contract_tests::servers::Server;
use syncguard_postgres::sqlx::postgres::{PgConnectOptions, PgPool};
use syncguard_postgres::sqlx::{self, ConnectOptions};
use syncguard_postgres::{
    Backend, ErrorCode, Finding, Level, Operation, PostgresBackend, Publication,
};

use super::faults::{pid, until_one_waits};
use super::replicas::Replicas;
use super::{
    Outcome, PATIENCE, as_user, cases, empty_schema, execute, fresh_id, fresh_key, lease, minute,
    patient, pool_of, service,
};
use crate::log::logging;

cases![
    the_schema_decides_whatever_the_search_path_is,
    tables_found_by_the_search_path_are_one_warning,
    k4_no_log_of_the_driver_shows_a_key_or_an_id,
    k4_no_error_shows_an_id,
    e1_a_failed_connect_names_address_database_and_cause,
    e1_a_missing_permission_is_named,
    e1_a_canceled_statement_is_no_timeout,
    a_preflight_of_a_good_server_is_fine,
    a_preflight_finds_what_is_wrong,
    a_preflight_of_a_standby_is_an_error,
    a_preflight_without_a_connection_knows_nothing,
];

fn named(schema: &str, pool: &PgPool) -> Outcome<PostgresBackend> {
    let builder = PostgresBackend::builder().schema(schema).command_timeout(PATIENCE);
    Ok(builder.build(pool.clone())?)
}

async fn the_schema_decides_whatever_the_search_path_is(server: Arc<Server>) -> Outcome {
    let (in_a, a) = empty_schema(&server).await?;
    let (in_b, b) = empty_schema(&server).await?;
    patient(in_b.clone())?.setup_schema().await?;
    let (one, other) = (named(&a, &in_a)?, named(&a, &in_b)?);
    let one = PostgresBackend::builder()
        .schema(&a)
        .delete_trigger(true)
        .command_timeout(PATIENCE)
        .build(one.pool().clone())?;
    // The search path leads elsewhere while the tables are created, and afterwards.
    other.setup_schema().await?;
    one.setup_schema().await?;
    one.setup_schema().await?;
    let key = fresh_key();
    let held = lease(one.acquire(&key, &fresh_id(), minute()).await)?.expect("it was free");
    assert!(lease(other.acquire(&key, &fresh_id(), minute()).await)?.is_none());
    assert!(other.extend(&held, minute()).await?.is_some());
    assert_eq!(other.get(&key).await?.map(|record| record.fence()), Some(held.fence()));
    let next = other.handoff(&held, &fresh_id(), minute()).await?.expect("it was live");
    assert!(one.release(&next).await?);
    let publication = Publication::new(next.fence(), "node", "value")?;
    assert!(one.publish(&next, &publication, minute()).await?);
    assert_eq!(other.published(&key).await?, Some(publication));
    other.withdraw(&next).await?;
    assert_eq!(one.purge_expired(Duration::ZERO).await?, 0);
    let count = format!("SELECT count(*) FROM {b}.syncguard_fence_counters");
    let elsewhere: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&in_b).await?;
    assert_eq!(elsewhere, 0);
    Ok(())
}

async fn tables_found_by_the_search_path_are_one_warning(server: Arc<Server>) -> Outcome {
    let (pool, schema) = empty_schema(&server).await?;
    let options = PgConnectOptions::clone(&pool.connect_options());
    let warnings = async |own: bool| {
        let (options, schema) = (options.clone(), schema.clone());
        logging("syncguard_postgres", move |log| async move {
            let builder = PostgresBackend::builder().command_timeout(PATIENCE);
            let builder = if own { builder.schema(schema) } else { builder };
            let backend = builder.build(pool_of(1).connect_lazy_with(options)).unwrap();
            backend.setup_schema().await.unwrap();
            log.warnings()
        })
        .await
    };
    let found = warnings(false).await;
    let [warning] = &found[..] else { panic!("{found:?}") };
    assert!(warning.contains(&schema) && warning.contains("schema"), "{warning}");
    assert_eq!(warnings(true).await, [""; 0]);
    Ok(())
}

/// The driver logs all statements at debug level, and slow ones as warnings.
async fn k4_no_log_of_the_driver_shows_a_key_or_an_id(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let options = PgConnectOptions::clone(&service.pool().connect_options());
    for capacity in [0, 100] {
        let options = options.clone().statement_cache_capacity(capacity);
        let (key, id) = (fresh_key(), fresh_id());
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let secrets =
            [key.as_str().to_owned(), hex(key.as_str()), id.as_str().to_owned(), hex(id.as_str())];
        let events = logging("sqlx", move |log| async move {
            let backend = patient(pool_of(2).connect_lazy_with(options)).unwrap();
            let held = lease(backend.acquire(&key, &id, minute()).await).unwrap().unwrap();
            backend.extend(&held, minute()).await.unwrap();
            backend.find(&id).await.unwrap();
            let mut transaction = backend.pool().begin().await.unwrap();
            assert!(backend.release_in(&mut transaction, &held).await.unwrap());
            let again = backend.acquire_in(&mut transaction, fresh_key(), minute()).await.unwrap();
            assert!(lease(Ok(again)).unwrap().is_some());
            transaction.commit().await.unwrap();
            assert!(!backend.release_by_id(&id).await.unwrap());
            log.events()
        });
        let events = events.await;
        assert!(!events.is_empty(), "the driver logs nothing, so this shows nothing");
        for (_, event) in events {
            assert!(!secrets.iter().any(|secret| event.contains(secret)), "{event}");
        }
    }
    Ok(())
}

/// The server quotes the id in the details of this error.
async fn k4_no_error_shows_an_id(server: Arc<Server>) -> Outcome {
    let (service, id) = (service(&server).await?, fresh_id());
    lease(service.acquire(&fresh_key(), &id, minute()).await)?;
    let error = service.acquire(&fresh_key(), &id, minute()).await.unwrap_err();
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    assert!(source.is_some_and(|source| source.to_string().contains("23505")), "{source:?}");
    while let Some(cause) = source {
        text.push_str(&format!(" {cause} {cause:?}"));
        source = cause.source();
    }
    assert!(!text.contains(id.as_str()), "{text}");
    Ok(())
}

async fn e1_a_failed_connect_names_address_database_and_cause(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let options = PgConnectOptions::clone(&service.pool().connect_options()).database("postgres");
    let user = format!("u{}", fresh_id().fingerprint());
    execute(service.pool(), format!("CREATE ROLE {user} LOGIN PASSWORD 'secret'")).await?;
    let nobody = free_port();
    for (options, code, cause) in [
        (options.clone().port(nobody), ErrorCode::ServiceUnavailable, "refused"),
        (as_user(&options, &user).password("wrong"), ErrorCode::AuthFailed, "password"),
        (options.clone().database("missing_one"), ErrorCode::InvalidArgument, "does not exist"),
    ] {
        let error = PostgresBackend::connect(options.to_url_lossy().as_str()).await.unwrap_err();
        let text = error.to_string();
        assert_eq!((error.code(), error.operation()), (code, Operation::Connect), "{text}");
        let address = format!("{}:{}", options.get_host(), options.get_port());
        for part in [address.as_str(), options.get_database().unwrap(), cause] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    Ok(())
}

async fn e1_a_missing_permission_is_named(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let user = format!("u{}", fresh_id().fingerprint());
    execute(service.pool(), format!("CREATE ROLE {user} LOGIN PASSWORD 'secret'")).await?;
    let options = as_user(&service.pool().connect_options(), &user);
    let guest = patient(pool_of(1).connect_lazy_with(options))?;
    let error = guest.get(&fresh_key()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AuthFailed, "{error}");
    assert!(error.to_string().contains("syncguard_locks"), "{error}");
    Ok(())
}

async fn e1_a_canceled_statement_is_no_timeout(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let (key, id) = (fresh_key(), fresh_id());
    let mut blocker = service.pool().begin().await?;
    lease(service.acquire_in(&mut blocker, &key, minute()).await)?;
    let (acquired, canceled) = tokio::join!(service.acquire(&key, &id, minute()), async {
        let waiting = until_one_waits(service.pool(), pid(&mut blocker).await?).await?;
        let cancel = sqlx::query("SELECT pg_cancel_backend($1)").bind(waiting);
        cancel.execute(service.pool()).await
    });
    canceled?;
    let error = acquired.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable, "{error}");
    Ok(())
}

/// Returns the level of each check.
fn levels(findings: &[Finding]) -> Vec<(&'static str, Level)> {
    findings.iter().map(|finding| (finding.code(), finding.level())).collect()
}

const CHECKS: [&str; 14] = [
    "connection",
    "server-version",
    "primary",
    "read-only",
    "isolation-level",
    "synchronous-commit",
    "search-path",
    "tables",
    "indexes",
    "privileges",
    "connection-headroom",
    "long-transactions",
    "leader-table",
    "pooler-mode",
];

async fn a_preflight_of_a_good_server_is_fine(server: Arc<Server>) -> Outcome {
    let (pool, schema) = empty_schema(&server).await?;
    let backend = named(&schema, &pool)?;
    backend.setup_schema().await?;
    let findings = backend.preflight().await;
    // The trials beside this one use up connections, and may have long transactions.
    let busy = ["connection-headroom", "long-transactions"];
    for (finding, code) in findings.iter().zip(CHECKS) {
        assert_eq!(finding.code(), code);
        let level = finding.level();
        assert!(
            level == Level::Fine || (busy.contains(&code) && level == Level::Warning),
            "{finding}"
        );
        assert_eq!(finding.advice().is_empty(), level == Level::Fine, "{finding}");
    }
    assert_eq!(findings.len(), CHECKS.len());
    Ok(())
}

async fn a_preflight_finds_what_is_wrong(server: Arc<Server>) -> Outcome {
    let (pool, schema) = empty_schema(&server).await?;
    let with = |settings: &[(&str, &str)]| {
        let options = PgConnectOptions::clone(&pool.connect_options());
        patient(pool_of(2).connect_lazy_with(options.options(settings.to_vec())))
    };
    let found = async |backend: PostgresBackend| levels(&backend.preflight().await);
    let before = found(with(&[])?).await;
    assert!(before.contains(&("tables", Level::Error)), "{before:?}");
    assert!(before.contains(&("indexes", Level::Unknown)), "{before:?}");

    patient(pool.clone())?.setup_schema().await?;
    let path = found(with(&[])?).await;
    assert!(path.contains(&("search-path", Level::Warning)), "{path:?}");
    let read_only = found(with(&[("default_transaction_read_only", "on")])?).await;
    assert!(read_only.contains(&("read-only", Level::Error)), "{read_only:?}");
    let isolation = found(with(&[("default_transaction_isolation", "serializable")])?).await;
    assert!(isolation.contains(&("isolation-level", Level::Warning)), "{isolation:?}");
    let lazy = found(with(&[("synchronous_commit", "off")])?).await;
    assert!(lazy.contains(&("synchronous-commit", Level::Warning)), "{lazy:?}");
    execute(&pool, format!("DROP INDEX {schema}.idx_syncguard_locks_lock_id")).await?;
    let index = found(with(&[])?).await;
    assert!(index.contains(&("indexes", Level::Warning)), "{index:?}");
    execute(&pool, format!("DROP TABLE {schema}.syncguard_leaders")).await?;
    let leaders = found(with(&[])?).await;
    assert!(leaders.contains(&("leader-table", Level::Warning)), "{leaders:?}");

    let user = format!("u{}", fresh_id().fingerprint());
    execute(
        &pool,
        format!(
            "CREATE ROLE {user} LOGIN PASSWORD 'secret' CONNECTION LIMIT 3; \
             GRANT USAGE ON SCHEMA {schema} TO {user}; \
             GRANT SELECT ON {schema}.syncguard_locks TO {user}"
        ),
    )
    .await?;
    let options = as_user(&pool.connect_options(), &user);
    let guest = patient(pool_of(8).connect_lazy_with(options))?;
    let findings = guest.preflight().await;
    let found = levels(&findings);
    assert!(found.contains(&("privileges", Level::Error)), "{findings:?}");
    assert!(found.contains(&("connection-headroom", Level::Warning)), "{findings:?}");
    assert!(found.contains(&("long-transactions", Level::Unknown)), "{findings:?}");
    Ok(())
}

async fn a_preflight_of_a_standby_is_an_error(server: Arc<Server>) -> Outcome {
    let replicas = Replicas::start(&server).await?;
    replicas.until_in_sync().await?;
    let pool = pool_of(2).connect_lazy(&format!("{}/postgres", replicas.standby.url))?;
    let found = levels(&patient(pool)?.preflight().await);
    assert!(found.contains(&("primary", Level::Error)), "{found:?}");
    // A standby is always read-only. That is one fault, not two.
    assert!(found.contains(&("read-only", Level::Fine)), "{found:?}");
    Ok(())
}

async fn a_preflight_without_a_connection_knows_nothing(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let nobody = free_port();
    let options = PgConnectOptions::clone(&service.pool().connect_options()).port(nobody);
    let findings = patient(pool_of(1).connect_lazy_with(options))?.preflight().await;
    let expected: Vec<_> = CHECKS
        .iter()
        .map(|code| (*code, if *code == "connection" { Level::Error } else { Level::Unknown }))
        .collect();
    assert_eq!(levels(&findings), expected);
    assert!(findings[0].fact().contains("refused"), "{}", findings[0]);
    Ok(())
}
