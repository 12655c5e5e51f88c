//! `cargo run --release -p syncguard-bench -- redis://127.0.0.1:6379`
//!
//! Any number of URLs: `redis://..`, `postgres://..`, and `http://host:port` for a Firestore emulator.
//!
//! How many locks a second a store carries through SyncGuard, beside its floor: the cheapest thing
//! on the same driver that one could call a lock. Both run in turns, so that what disturbs the
//! machine disturbs both, and the ratio is the result. Give it a server of its own.

mod firestore;
mod measure;
mod postgres;
mod redis;

use measure::Outcome;

#[tokio::main]
async fn main() -> Outcome {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    if urls.is_empty() {
        return Err("which server? For example redis://127.0.0.1:6379".into());
    }
    for url in urls {
        match url.split(':').next() {
            Some("redis") => redis::run(&url).await?,
            Some("postgres" | "postgresql") => postgres::run(&url).await?,
            Some("http") => firestore::run(&url).await?,
            _ => return Err(format!("no benchmark for {url}").into()),
        }
    }
    Ok(())
}
