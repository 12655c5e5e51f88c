//! Releases while the server's notification queue is full, so that a transaction with NOTIFY cannot
//! commit.
//!
//! Filling the queue takes 8 GB, so the trials simulate it. A session with another search path
//! finds another `pg_notify`, which fails at commit like the real one, and another
//! `pg_notification_queue_usage`.

use std::sync::Arc;

use syncguard_postgres::Backend;
use syncguard_postgres::sqlx;
use syncguard_postgres::sqlx::postgres::PgPool;

use super::notifications::{Fixture, listening};
use super::{Outcome, cases, execute, pool_of};
use contract_tests::servers::Server;

cases![
    a_release_with_a_waiter_succeeds,
    a_release_succeeds_if_the_queue_fills_up_after_the_check,
    a_plain_delete_with_the_trigger_succeeds,
];

async fn a_release_with_a_waiter_succeeds(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let waiter = fixture.waiter()?;
    let full = fixture.named().build(full_queue(&fixture, FULL).await?)?;

    let (_, held) = fixture.holder().await?;
    let _notification = listening(&waiter, held.key()).await;
    assert!(full.release(&held).await?);
    assert_eq!(waiter.get(held.key()).await?, None);

    let (_, held) = fixture.holder().await?;
    let _notification = listening(&waiter, held.key()).await;
    let mut transaction = full.pool().begin().await?;
    assert!(full.release_in(&mut transaction, &held).await?);
    transaction.commit().await?;
    assert_eq!(waiter.get(held.key()).await?, None);
    Ok(())
}

async fn a_release_succeeds_if_the_queue_fills_up_after_the_check(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let waiter = fixture.waiter()?;
    let pool = full_queue(&fixture, "CASE nextval('usage_calls') WHEN 1 THEN 0 ELSE 1 END").await?;
    let full = fixture.named().build(pool)?;

    let (_, held) = fixture.holder().await?;
    let _notification = listening(&waiter, held.key()).await;
    assert!(full.release(&held).await?);
    assert_eq!(waiter.get(held.key()).await?, None);
    let calls = sqlx::query_scalar::<_, i64>("SELECT last_value FROM usage_calls");
    assert_eq!(calls.fetch_one(full.pool()).await?, 2);
    Ok(())
}

async fn a_plain_delete_with_the_trigger_succeeds(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let waiter = fixture.builder().delete_trigger(true).build(fixture.pool.clone())?;
    waiter.setup_schema().await?;
    let full = full_queue(&fixture, FULL).await?;

    let (_, held) = fixture.holder().await?;
    let _notification = listening(&waiter, held.key()).await;
    let delete = format!("DELETE FROM {} WHERE lock_id = '{}'", fixture.table, held.id().as_str());
    assert_eq!(execute(&full, delete).await?, 1);
    assert_eq!(waiter.get(held.key()).await?, None);
    Ok(())
}

/// The queue usage that a full queue reports.
const FULL: &str = "1";

/// Returns a pool whose sessions cannot notify. For them, the queue usage is the expression
/// `usage`.
async fn full_queue(fixture: &Fixture, usage: &str) -> Outcome<PgPool> {
    let schema = format!("full_{}", fixture.table);
    execute(&fixture.pool, format!("CREATE SCHEMA {schema}")).await?;
    let path = format!("{schema},pg_catalog,public");
    let options = fixture.options().options([("search_path", path)]);
    let full = pool_of(2).connect_with(options).await?;
    let functions = format!(
        "CREATE TABLE sent (channel text, payload text);
         CREATE FUNCTION pg_notify(text, text) RETURNS void LANGUAGE sql
             AS 'INSERT INTO sent VALUES ($1, $2)';
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE 'too many notifications in the NOTIFY queue' USING ERRCODE = '54000';
         END $$;
         CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON sent
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
         CREATE SEQUENCE usage_calls;
         CREATE FUNCTION pg_notification_queue_usage() RETURNS float8 LANGUAGE sql
             AS $$ SELECT ({usage})::float8 $$"
    );
    execute(&full, functions).await?;

    let refused =
        execute(&full, "SELECT pg_notify('any', '')").await.expect_err("the queue is full");
    let refused = refused.into_database_error().expect("an error of the server");
    assert_eq!(refused.code().as_deref(), Some("54000"));
    Ok(full)
}
