//! Steps that hold a key for a moment.

use std::mem;

use syncguard::{LockGuard, LockRequest, Result};
use tokio::time::sleep;

use super::abandon::abandon;
use super::hold::Hold;
use super::task::Task;
use crate::clock::Moment;
use crate::defect::Defect;
use crate::event::How;
use crate::keys::SHORT;

/// Takes a key for a moment, in one of several ways.
pub(crate) async fn step(task: &mut Task) {
    let began = Moment::now();
    if let Err(error) = attempt(task, began).await {
        task.worker.failed(&error, began);
        let pause = task.millis(20..100);
        sleep(pause).await;
    }
    let pause = task.millis(0..15);
    sleep(pause).await;
}

async fn attempt(task: &mut Task, began: Moment) -> Result<()> {
    let key = task.worker.keys.short(task.rng.usize(..SHORT));
    let (ttl, wait) = (task.ttl(), task.millis(1_000..4_000));
    let request = task.worker.locks.lock(key).ttl(ttl).wait(wait);
    match task.rng.u8(..100) {
        0..45 => {
            let guard = request.acquire().await?;
            finish(task, guard, How::Acquire, began).await
        }
        45..60 => match request.try_acquire().await? {
            Some(guard) => finish(task, guard, How::TryAcquire, began).await,
            None => Ok(()),
        },
        60..75 => {
            let guard = request.acquire().await?;
            let mut hold = task.worker.hold_guard(&guard, How::Acquire, began);
            hold.let_go();
            drop(guard);
            Ok(())
        }
        75..90 => {
            let polls = task.rng.usize(1..8);
            match abandon(request.acquire(), polls).await.transpose()? {
                Some(guard) => finish(task, guard, How::Acquire, began).await,
                None => Ok(()),
            }
        }
        90..95 => {
            let guard = request.acquire().await?;
            let mut hold = task.worker.hold_guard(&guard, How::Acquire, began);
            hold.let_go();
            let polls = task.rng.usize(0..4);
            match abandon(guard.release(), polls).await.transpose()? {
                Some(released) => hold.answered(released),
                None => drop(hold),
            }
            Ok(())
        }
        _ => run(task, request, began).await,
    }
}

async fn run(task: &mut Task, request: LockRequest, began: Moment) -> Result<()> {
    let length = task.millis(0..20);
    request
        .run(async |guard| -> Result<()> {
            let hold = task.worker.hold_guard(guard, How::Run, began);
            task.work(guard, &hold, length).await;
            Ok(())
        })
        .await
}

/// Holds for a moment, and releases.
async fn finish(task: &mut Task, guard: LockGuard, how: How, began: Moment) -> Result<()> {
    let mut hold = task.worker.hold_guard(&guard, how, began);
    if task.worker.defect == Some(Defect::GuardsLeak) && task.rng.u8(..50) == 0 {
        leak(guard, hold);
        return Ok(());
    }
    task.touch(&guard, &hold).await;
    if task.rng.u8(..4) == 0 {
        let length = task.millis(0..10);
        task.work(&guard, &hold, length).await;
    }
    hold.let_go();
    hold.answered(guard.release().await?);
    Ok(())
}

#[allow(clippy::mem_forget, reason = "a negative control")]
fn leak(guard: LockGuard, mut hold: Hold) {
    // Kept alive for as long as the process lives.
    drop(guard.lost_token());
    mem::forget(guard);
    hold.leak();
}
