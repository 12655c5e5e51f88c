//! Real failures and their error codes (E1).

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use syncguard_postgres::sqlx::postgres::{PgConnectOptions, PgPool};
use syncguard_postgres::sqlx::{self, ConnectOptions};
use syncguard_postgres::{Backend, ErrorCode, PostgresBackend};

use super::{
    Outcome, as_user, backend, cases, execute, fresh_id, fresh_key, lease, minute, service,
};
use contract_tests::ports::free_port;
use contract_tests::servers::Server;

cases![
    a_refused_connection_is_unavailable,
    an_unknown_user_is_auth_failed,
    an_unknown_database_is_invalid,
    a_malformed_url_is_invalid,
    too_many_connections_is_rate_limited,
    a_read_only_session_is_unavailable,
    a_statement_timeout_of_the_session_is_a_timeout,
    a_closed_pool_is_a_permanent_error,
    a_failed_transaction_is_invalid,
    a_lock_id_used_for_two_keys_is_invalid,
];

fn options(backend: &PostgresBackend) -> PgConnectOptions {
    PgConnectOptions::clone(&backend.pool().connect_options())
}

async fn code_of_connect(options: &PgConnectOptions) -> ErrorCode {
    let connected = PostgresBackend::connect(options.to_url_lossy().as_str()).await;
    let error = connected.unwrap_err();
    assert!(error.source().is_some(), "{error}");
    error.code()
}

async fn a_refused_connection_is_unavailable(server: Arc<Server>) -> Outcome {
    let port = free_port();
    let nobody = options(&service(&server).await?).port(port);
    assert_eq!(code_of_connect(&nobody).await, ErrorCode::ServiceUnavailable);

    let pool = PgPool::connect_lazy_with(nobody);
    let hasty = PostgresBackend::builder().command_timeout(Duration::from_millis(100));
    let error = hasty.build(pool)?.get(&fresh_key()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable, "{error}");
    Ok(())
}

async fn an_unknown_user_is_auth_failed(server: Arc<Server>) -> Outcome {
    let unknown = as_user(&options(&service(&server).await?), "nobody_of_that_name");
    assert_eq!(code_of_connect(&unknown).await, ErrorCode::AuthFailed);
    Ok(())
}

async fn an_unknown_database_is_invalid(server: Arc<Server>) -> Outcome {
    let unknown = options(&service(&server).await?).database("none_of_that_name");
    assert_eq!(code_of_connect(&unknown).await, ErrorCode::InvalidArgument);
    Ok(())
}

async fn a_malformed_url_is_invalid(_: Arc<Server>) -> Outcome {
    let error = PostgresBackend::connect("not a url").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    Ok(())
}

async fn too_many_connections_is_rate_limited(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let user = format!("u{}", fresh_id().fingerprint());
    let sql = format!("CREATE ROLE {user} LOGIN PASSWORD 'secret' CONNECTION LIMIT 1");
    execute(service.pool(), sql).await?;
    let options = as_user(&options(&service), &user);
    let first = options.connect().await?;
    assert_eq!(code_of_connect(&options).await, ErrorCode::RateLimited);
    drop(first);
    Ok(())
}

async fn a_read_only_session_is_unavailable(server: Arc<Server>) -> Outcome {
    service(&server).await?;
    let reader =
        backend(&server, 1, |options| options.options([("default_transaction_read_only", "on")]));
    let (reader, key) = (reader.await?, fresh_key());
    let error = reader.acquire(&key, &fresh_id(), minute()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable, "{error}");
    assert_eq!(reader.get(&key).await?, None);
    Ok(())
}

async fn a_statement_timeout_of_the_session_is_a_timeout(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let hasty = backend(&server, 1, |options| options.options([("statement_timeout", "100")]));
    let (hasty, key) = (hasty.await?, fresh_key());
    let mut blocker = service.pool().begin().await?;
    lease(service.acquire_in(&mut blocker, &key, minute()).await)?;
    let error = hasty.acquire(&key, &fresh_id(), minute()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NetworkTimeout, "{error}");
    Ok(())
}

async fn a_closed_pool_is_a_permanent_error(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    lease(service.acquire(&fresh_key(), &fresh_id(), minute()).await)?;
    service.pool().close().await;
    let error = service.get(&fresh_key()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Aborted, "{error}");
    Ok(())
}

async fn a_failed_transaction_is_invalid(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let mut transaction = service.pool().begin().await?;
    sqlx::query("SELECT 1 / 0").execute(&mut *transaction).await.unwrap_err();
    let acquired = service.acquire_in(&mut transaction, &fresh_key(), minute()).await;
    let error = acquired.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    Ok(())
}

async fn a_lock_id_used_for_two_keys_is_invalid(server: Arc<Server>) -> Outcome {
    let (service, id) = (service(&server).await?, fresh_id());
    lease(service.acquire(&fresh_key(), &id, minute()).await)?;
    let error = service.acquire(&fresh_key(), &id, minute()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    Ok(())
}
