//! Releases where the server's queue of notifications is full, so that no NOTIFY commits.
//!
//! It takes 8 GB to fill it, so it is played here: a session with another search path finds another
//! `pg_notify`, which fails at the commit as the server's then does, and another
//! `pg_notification_queue_usage`.

use std::sync::Arc;

use syncguard_postgres::Backend;
use syncguard_postgres::sqlx;
use syncguard_postgres::sqlx::postgres::PgPool;

use super::notifications::{Place, listening};
use super::{Outcome, cases, execute, pool_of};
use contract_tests::servers::Server;

cases![
    a_release_that_somebody_waits_for_succeeds,
    so_it_does_where_the_queue_fills_up_after_the_look,
    so_does_a_plain_delete_in_spite_of_the_trigger,
];

async fn a_release_that_somebody_waits_for_succeeds(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let waiter = place.builder().build()?;
    let full = place.on(full_queue(&place, FULL).await?).build()?;

    let (_, held) = place.holder().await?;
    let _notification = listening(&waiter, held.key()).await;
    assert!(full.release(&held).await?);
    assert_eq!(waiter.get(held.key()).await?, None);

    let (_, held) = place.holder().await?;
    let _notification = listening(&waiter, held.key()).await;
    let mut transaction = full.pool().begin().await?;
    assert!(full.release_in(&mut transaction, &held).await?);
    transaction.commit().await?;
    assert_eq!(waiter.get(held.key()).await?, None);
    Ok(())
}

async fn so_it_does_where_the_queue_fills_up_after_the_look(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let waiter = place.builder().build()?;
    let pool = full_queue(&place, "CASE nextval('looks') WHEN 1 THEN 0 ELSE 1 END").await?;
    let full = place.on(pool).build()?;

    let (_, held) = place.holder().await?;
    let _notification = listening(&waiter, held.key()).await;
    assert!(full.release(&held).await?);
    assert_eq!(waiter.get(held.key()).await?, None);
    let looks = sqlx::query_scalar::<_, i64>("SELECT last_value FROM looks");
    assert_eq!(looks.fetch_one(full.pool()).await?, 2);
    Ok(())
}

async fn so_does_a_plain_delete_in_spite_of_the_trigger(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let waiter = place.builder().delete_trigger(true).build()?;
    waiter.setup_schema().await?;
    let full = full_queue(&place, FULL).await?;

    let (_, held) = place.holder().await?;
    let _notification = listening(&waiter, held.key()).await;
    let delete = format!("DELETE FROM {} WHERE lock_id = '{}'", place.table, held.id().as_str());
    assert_eq!(execute(&full, delete).await?, 1);
    assert_eq!(waiter.get(held.key()).await?, None);
    Ok(())
}

/// How full it says it is.
const FULL: &str = "1";

/// Sessions that find the queue full, and as full as `usage` says.
async fn full_queue(place: &Place, usage: &str) -> Outcome<PgPool> {
    let schema = format!("full_{}", place.table);
    execute(&place.pool, format!("CREATE SCHEMA {schema}")).await?;
    let path = format!("{schema},pg_catalog,public");
    let options = place.options().options([("search_path", path)]);
    let full = pool_of(2).connect_with(options).await?;
    let functions = format!(
        "CREATE TABLE told (channel text, payload text);
         CREATE FUNCTION pg_notify(text, text) RETURNS void LANGUAGE sql
             AS 'INSERT INTO told VALUES ($1, $2)';
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE 'too many notifications in the NOTIFY queue' USING ERRCODE = '54000';
         END $$;
         CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON told
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
         CREATE SEQUENCE looks;
         CREATE FUNCTION pg_notification_queue_usage() RETURNS float8 LANGUAGE sql
             AS $$ SELECT ({usage})::float8 $$"
    );
    execute(&full, functions).await?;

    let refused = execute(&full, "SELECT pg_notify('any', '')").await.expect_err("it is full");
    let refused = refused.into_database_error().expect("by the server");
    assert_eq!(refused.code().as_deref(), Some("54000"));
    Ok(full)
}
