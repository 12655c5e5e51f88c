//! `cargo bench -p syncguard-bench -- redis://127.0.0.1:6379`
//!
//! Any number of URLs: `redis://..`, `postgres://..`, `http://host:port` for a Firestore emulator, and
//! `memory:`.
//! `--quick` takes less time and is less exact; `--only uncontended`, `--only hot-key` and
//! `--only crowd` pick a part, and may be repeated.
//!
//! What a lock costs, alone and where many want it, beside the floor of each store and beside other
//! libraries. Give it servers of their own.

mod contestant;
mod crowd;
mod firestore;
mod hot_key;
mod machine;
mod memory;
mod options;
mod postgres;
mod processes;
mod redis;
mod store;
mod uncontended;

use syncguard_bench::Outcome;

use options::{Options, Section};
use store::Store;

#[tokio::main]
async fn main() -> Outcome {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == processes::CHILD) {
        arguments.remove(0);
        return processes::report(child(&arguments)).await;
    }

    let options = Options::parse(arguments)?;
    let stores: Vec<_> =
        options.urls.iter().map(|url| Store::parse(url)).collect::<Outcome<_>>()?;
    machine::print().await?;
    for store in &stores {
        println!("- {}", store.about().await?);
    }
    for store in &stores {
        if options.has(Section::Uncontended) {
            store.uncontended(options.pace).await?;
        }
        if options.has(Section::HotKey) {
            hot_key::run(store, options.pace).await?;
        }
        if options.has(Section::Crowd) {
            crowd::run(store, options.pace).await?;
        }
    }
    Ok(())
}

/// A process that a part of the benchmark has started.
async fn child(arguments: &[String]) -> Outcome<Vec<String>> {
    let Some((part, arguments)) = arguments.split_first() else {
        return Err("which part?".into());
    };
    match part.as_str() {
        hot_key::PART => hot_key::worker::run(arguments).await,
        crowd::PART => crowd::waiters::run(arguments).await,
        _ => Err(format!("no part {part}").into()),
    }
}
