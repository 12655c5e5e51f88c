//! A register outside the store, which refuses a write with a lower fence than it has seen.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::event::Event;
use crate::history::History;

/// The highest fence of each key.
type Highest = Arc<Mutex<HashMap<String, u64>>>;

/// Starts the register in a task, and returns its port. It notes each write in the order in which it
/// decides about them.
pub(crate) async fn start(history: History) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        let mut writers = JoinSet::new();
        let highest = Highest::default();
        while let Ok((writer, _)) = listener.accept().await {
            writers.spawn(serve(writer, highest.clone(), history.clone()));
            while writers.try_join_next().is_some() {}
        }
    });
    Ok(port)
}

/// Answers each line `key fence` with `true` or `false`.
async fn serve(mut writer: TcpStream, highest: Highest, history: History) -> io::Result<()> {
    let (from, mut to) = writer.split();
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await? {
        let Some((key, fence)) = line.split_once(' ') else { continue };
        let Ok(fence) = fence.parse() else { continue };
        let accepted = decide(&highest, &history, key, fence);
        to.write_all(format!("{accepted}\n").as_bytes()).await?;
    }
    Ok(())
}

fn decide(highest: &Highest, history: &History, key: &str, fence: u64) -> bool {
    let mut highest = highest.lock().unwrap_or_else(PoisonError::into_inner);
    let known = highest.entry(key.to_owned()).or_default();
    let accepted = fence >= *known;
    *known = fence.max(*known);
    // Under the lock, so that the order in the history is that of the decisions.
    history.note(Event::Write { key: key.to_owned(), fence, accepted });
    accepted
}

/// A connection to the register. A task has one of its own.
#[derive(Debug)]
pub(crate) struct Writer(BufReader<TcpStream>);

impl Writer {
    pub(crate) async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Writes under this fence, and waits for the answer. What it is, the register notes.
    pub(crate) async fn write(&mut self, key: &str, fence: u64) -> io::Result<()> {
        self.0.write_all(format!("{key} {fence}\n").as_bytes()).await?;
        self.0.read_line(&mut String::new()).await.map(drop)
    }
}
