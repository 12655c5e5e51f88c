//! `cargo run --features axum --bin web`
//!
//! A lock in an axum handler, with an error type made by thiserror. The closure names its error type
//! once, and `?` works in it for every error that the type can be made of.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use syncguard_memory::{ErrorCode, Fence, LockManager, MemoryBackend};
use tower::ServiceExt;

/// The error of the handlers. `run` needs the `From` that `#[from]` makes.
#[derive(Debug, thiserror::Error)]
enum AppError {
    #[error(transparent)]
    Lock(#[from] syncguard_memory::Error),
    #[error("the card was declined")]
    Declined,
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Lock(error) => status(error.code()),
            Self::Declined => StatusCode::PAYMENT_REQUIRED,
        };
        (status, self.to_string()).into_response()
    }
}

/// The README explains the choices.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::AcquisitionTimeout => StatusCode::CONFLICT,
        ErrorCode::ServiceUnavailable | ErrorCode::RateLimited | ErrorCode::Aborted => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorCode::NetworkTimeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn pay(
    State(locks): State<LockManager>,
    Path(invoice): Path<u32>,
) -> Result<String, AppError> {
    let receipt = locks
        .lock(format!("invoice:{invoice}"))
        .run(async |lock| -> Result<_, AppError> {
            let receipt = charge(invoice, lock.fence()).await?;
            Ok(receipt)
        })
        .await?;
    Ok(format!("paid: {receipt}"))
}

/// Stands for the payment provider. See docs/payments.md for what it must do.
async fn charge(invoice: u32, fence: Fence) -> Result<String, AppError> {
    if invoice == 13 {
        return Err(AppError::Declined);
    }
    Ok(format!("invoice {invoice}, fence {fence}"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let locks = LockManager::new(MemoryBackend::new());
    let app = Router::new().route("/invoices/{id}/pay", post(pay)).with_state(locks.clone());

    // A service gives `app` to `axum::serve`. Here it gets two requests, without a network.
    for invoice in [7, 13] {
        let request = Request::post(format!("/invoices/{invoice}/pay")).body(Body::empty())?;
        let response = app.clone().oneshot(request).await?;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1024).await?;
        println!("{status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(locks.shutdown().await?)
}
