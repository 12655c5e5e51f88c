//! Steps that hold a key for longer: kept alive, extended, passed on, lost.

use std::time::Duration;

use syncguard::{LockRequest, Result};
use tokio::time::{sleep, timeout};

use super::task::Task;
use crate::clock::Moment;
use crate::defect::Defect;
use crate::event::How;
use crate::keys::LONG;

/// Takes a key for up to a few seconds, in one of several ways.
pub(crate) async fn step(task: &mut Task) {
    let began = Moment::now();
    let key = task.worker.keys.long(task.rng.usize(..LONG));
    let (ttl, wait) = (task.ttl(), task.millis(500..6_000));
    let request = task.worker.locks.lock(key).ttl(ttl).wait(wait);
    if task.worker.defect == Some(Defect::HolderIgnoresLoss) {
        // Others take the key in the middle of the work, also if the store has a tolerance.
        let expires = request.ttl(task.ttl() / 2);
        drop(kept(task, expires, Duration::from_secs(5), began).await);
        return;
    }
    let length = task.millis(50..2_500);
    let done = match task.rng.u8(..100) {
        0..30 => kept(task, request.keep_alive(), length, began).await,
        30..55 => run(task, request, began).await,
        55..70 => extended(task, request, began).await,
        70..80 => passed_on(task, request, began).await,
        80..90 => by_id(task, request.keep_alive(), began).await,
        90..95 => kept(task, request.without_keep_alive(), length, began).await,
        _ => kept(task, request.keep_alive().max_hold(ttl / 2), length, began).await,
    };
    if let Err(error) = done {
        task.worker.failed(&error, began);
    }
    let pause = task.millis(10..150);
    sleep(pause).await;
}

async fn kept(
    task: &mut Task,
    request: LockRequest,
    length: Duration,
    began: Moment,
) -> Result<()> {
    let guard = request.acquire().await?;
    let mut hold = task.worker.hold_guard(&guard, How::Acquire, began);
    task.work(&guard, &hold, length).await;
    hold.let_go();
    hold.answered(guard.release().await?);
    Ok(())
}

/// Some of these futures are dropped in the middle.
async fn run(task: &mut Task, request: LockRequest, began: Moment) -> Result<()> {
    let (length, limit) = (task.millis(50..2_000), task.millis(100..8_000));
    let running = request.run(async |guard| -> Result<()> {
        let hold = task.worker.hold_guard(guard, How::Run, began);
        task.work(guard, &hold, length).await;
        Ok(())
    });
    timeout(limit, running).await.unwrap_or(Ok(()))
}

async fn extended(task: &mut Task, request: LockRequest, began: Moment) -> Result<()> {
    let guard = request.acquire().await?;
    let mut hold = task.worker.hold_guard(&guard, How::Acquire, began);
    for _ in 0..task.rng.usize(1..4) {
        let (length, ttl) = (task.millis(50..700), task.ttl());
        if !task.work(&guard, &hold, length).await {
            break;
        }
        // From here on, the shorter time counts.
        hold.claim_at_most(&guard, ttl);
        tokio::select! {
            biased;
            () = guard.lost() => hold.lost(),
            extended = guard.extend(ttl) => extended.map(drop)?,
        }
    }
    hold.let_go();
    hold.answered(guard.release().await?);
    Ok(())
}

/// Detaches the lease and adopts it, or leaves it to its TTL.
async fn passed_on(task: &mut Task, request: LockRequest, began: Moment) -> Result<()> {
    let again = request.clone().keep_alive();
    let guard = request.acquire().await?;
    let mut hold = task.worker.hold_guard(&guard, How::Acquire, began);
    hold.let_go();
    let lease = guard.detach();
    if task.rng.u8(..5) == 0 {
        return Ok(());
    }
    let pause = task.millis(0..1_500);
    sleep(pause).await;
    let adopting = Moment::now();
    if let Some(guard) = again.adopt(&lease).await? {
        let mut hold = task.worker.hold_guard(&guard, How::Adopt, adopting);
        let length = task.millis(0..1_000);
        task.work(&guard, &hold, length).await;
        hold.let_go();
        hold.answered(guard.release().await?);
    }
    Ok(())
}

/// Releases by the id alone.
async fn by_id(task: &mut Task, request: LockRequest, began: Moment) -> Result<()> {
    let guard = request.acquire().await?;
    let mut hold = task.worker.hold_guard(&guard, How::Acquire, began);
    let length = task.millis(0..800);
    task.work(&guard, &hold, length).await;
    hold.let_go();
    hold.answered(task.worker.locks.release_by_id(guard.id()).await?);
    Ok(())
}
