//! `cargo bench -p syncguard-bench -- redis://127.0.0.1:6379`
//!
//! Measures what a lock costs, with and without contention, and compares it with the floor of each
//! store and with other libraries. Use servers that have nothing else to do.
//!
//! The arguments are any number of URLs: `redis://..`, `postgres://..`, `http://host:port` for a
//! Firestore emulator, and `memory:`. `--quick` takes less time and is less exact.
//! `--only` selects a part, and may be repeated: `uncontended`, `hot-key`, `crowd`, `election`, `kept`,
//! and `group-commit`, which runs only if it is asked for.

mod choice;
mod contestant;
mod crowd;
mod delay;
mod election;
mod firestore;
mod group_commit;
mod hot_key;
mod kept;
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
        if options.has(Section::Election) && store.is_shared() {
            election::run(store, options.pace).await?;
        }
        if options.has(Section::Kept) && store.has_group_commit() {
            kept::run(store).await?;
        }
        if options.has(Section::GroupCommit) && store.has_group_commit() {
            group_commit::run(store, options.pace).await?;
        }
    }
    Ok(())
}

/// Runs a child process, which a part of the benchmark has started.
async fn child(arguments: &[String]) -> Outcome<Vec<String>> {
    let Some((part, arguments)) = arguments.split_first() else {
        return Err("a child needs the name of a part".into());
    };
    match part.as_str() {
        hot_key::PART => hot_key::worker::run(arguments).await,
        crowd::PART => crowd::waiters::run(arguments).await,
        _ => Err(format!("unknown part {part}").into()),
    }
}
