//! `DATABASE_URL=postgres://postgres:postgres@127.0.0.1:5432/postgres cargo run --features postgres --bin fenced_table`
//!
//! One database stores the lock and the data, and the data refuses a stale fence. So a holder that
//! was paused for longer than its lease cannot overwrite the write of the next holder.

use std::error::Error;
use std::time::Duration;

use syncguard_postgres::sqlx::{self, PgPool};
use syncguard_postgres::{Fence, LockManager, PostgresBackend};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL")
        .unwrap_or("postgres://postgres:postgres@127.0.0.1:5432/postgres".into());
    let backend = PostgresBackend::connect(&url).await?;
    let pool = backend.pool().clone();
    backend.setup_schema().await?;
    let locks = LockManager::new(backend);
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS example_accounts (id TEXT PRIMARY KEY, balance BIGINT NOT NULL,
         fence BIGINT NOT NULL DEFAULT 0)",
    )
    .execute(&pool)
    .await?;
    sqlx::query("INSERT INTO example_accounts VALUES ('ada', 100) ON CONFLICT DO NOTHING")
        .execute(&pool)
        .await?;

    let ttl = Duration::from_millis(100);
    let paused = locks.lock("account:ada").ttl(ttl).acquire().await?;
    println!("one holder has fence {} and is paused", paused.fence());
    sleep(ttl).await;

    let next = locks.lock("account:ada").acquire().await?;
    println!("the next holder has fence {}", next.fence());
    println!("the next holder's write is taken: {}", set_balance(&pool, 150, next.fence()).await?);
    println!("the late holder's write is taken: {}", set_balance(&pool, 90, paused.fence()).await?);

    let (balance, fence): (i64, Fence) =
        sqlx::query_as("SELECT balance, fence FROM example_accounts WHERE id = 'ada'")
            .fetch_one(&pool)
            .await?;
    println!("the balance is {balance}, written with fence {fence}");
    next.release().await?;
    Ok(())
}

/// Compares the fence and writes, in one statement. Returns false if a later holder was here.
async fn set_balance(pool: &PgPool, balance: i64, fence: Fence) -> Result<bool, sqlx::Error> {
    let updated = sqlx::query(
        "UPDATE example_accounts SET balance = $1, fence = $2 WHERE id = 'ada' AND fence <= $2",
    )
    .bind(balance)
    .bind(fence)
    .execute(pool)
    .await?;
    Ok(updated.rows_affected() == 1)
}
