//! `cargo run --bin custom_backend`
//!
//! Locks on a store of your own. `src/file_backend.rs` implements the trait for a plain file, and
//! `tests/custom_backend.rs` proves it with the contract suite. The runtime adds the rest: waiting,
//! keep-alive, the loss signal and background releases.

use syncguard::LockManager;
use syncguard_examples::file_backend::FileBackend;

#[tokio::main]
async fn main() -> Result<(), syncguard::Error> {
    let path = std::env::temp_dir().join("syncguard-example.json");
    let locks = LockManager::new(FileBackend::new(path));
    let guard = locks.lock("backup").keep_alive().acquire().await?;
    println!("this process holds the lock with fence {}", guard.fence());

    let other = locks.lock("backup").try_acquire().await?;
    println!("another request gets it meanwhile: {}", other.is_some());
    println!("released: {}", guard.release().await?);
    locks.shutdown().await
}
