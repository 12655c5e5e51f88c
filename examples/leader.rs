//! `REDIS_URL=redis://127.0.0.1:6379 cargo run --features redis --bin leader`
//!
//! Three processes campaign for one key. The leader is killed, and another process takes over. That
//! one is stopped for longer than its lease lasts, in the middle of a step. The third leads by then, so the
//! ledger refuses what the stopped process writes when it goes on.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use syncguard_redis::{Fence, LockManager, RedisBackend, Result};

/// Short, so that the example ends soon. In a service, 10 to 30 s suit most leaders.
const TTL: Duration = Duration::from_secs(1);

fn main() -> std::result::Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(name) => Ok(tokio::runtime::Runtime::new()?.block_on(candidate(&name))?),
        None => watch(),
    }
}

/// One of the three processes. It tells what it does on its standard output.
async fn candidate(name: &str) -> Result<()> {
    let url = std::env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379".into());
    let locks = LockManager::new(RedisBackend::connect(&url).await?);
    let key = std::env::var("ELECTION").unwrap_or("ledger".into());
    let election = locks.election(key.as_str()).ttl(TTL).candidate(name);
    election
        .lead(async |term| -> Result<()> {
            println!("{name} leads {}", term.fence());
            loop {
                // A step that blocks, such as a computation: nothing can end it halfway.
                println!("{name} begins {}", term.fence());
                thread::sleep(TTL / 4);
                println!("{name} writes {}", term.fence());
                tokio::select! {
                    () = term.ending() => return Ok(()),
                    () = tokio::time::sleep(TTL / 10) => {}
                }
            }
        })
        .await
}

/// The ledger that the leader writes to. It remembers the highest fence.
#[derive(Default)]
struct Ledger(Option<Fence>);

impl Ledger {
    fn write(&mut self, fence: Fence) -> bool {
        let accepted = Some(fence) >= self.0;
        self.0 = self.0.max(Some(fence));
        accepted
    }
}

/// Starts the three processes, and does to them what happens to processes.
fn watch() -> std::result::Result<(), Box<dyn Error>> {
    let (lines, said) = channel();
    let names = ["ada", "bob", "carl"];
    let mut processes: Vec<_> =
        names.iter().map(|name| start(name, &lines)).collect::<std::io::Result<_>>()?;
    let process = |name: &str| names.iter().position(|known| *known == name);
    let mut ledger = Ledger::default();

    let first = hear(&said, &mut ledger, "leads", "")?;
    println!("{first} is killed");
    if let Some(index) = process(&first) {
        processes[index].kill()?;
    }
    let second = hear(&said, &mut ledger, "leads", &first)?;
    hear(&said, &mut ledger, "begins", &first)?;
    println!("{second} is stopped in the middle of a step");
    signal("STOP", &processes, process(&second))?;
    hear(&said, &mut ledger, "leads", &second)?;
    hear(&said, &mut ledger, "writes", &second)?;
    println!("{second} goes on");
    signal("CONT", &processes, process(&second))?;
    while !hear(&said, &mut ledger, "writes", "")?.eq(&second) {}

    for process in &mut processes {
        process.kill()?;
        process.wait()?;
    }
    Ok(())
}

fn start(name: &str, lines: &Sender<String>) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut process = command.arg(name).stdout(Stdio::piped()).spawn()?;
    if let Some(output) = process.stdout.take() {
        let lines = lines.clone();
        thread::spawn(move || {
            BufReader::new(output)
                .lines()
                .map_while(|line| line.ok())
                .try_for_each(|line| lines.send(line))
        });
    }
    Ok(process)
}

/// Waits until a process other than `not` does this, and returns its name. What is written meanwhile
/// goes to the ledger.
fn hear(
    said: &Receiver<String>,
    ledger: &mut Ledger,
    verb: &str,
    not: &str,
) -> std::result::Result<String, Box<dyn Error>> {
    loop {
        let line = said.recv_timeout(Duration::from_secs(30))?;
        let [name, does, fence] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        let fence: Fence = fence.parse()?;
        match does {
            "leads" => println!("{name} leads with fence {fence}"),
            "writes" if !ledger.write(fence) => {
                println!("a late write of {name} with fence {fence} is refused");
            }
            _ => {}
        }
        if does == verb && name != not {
            return Ok(name.to_owned());
        }
    }
}

fn signal(signal: &str, processes: &[Child], index: Option<usize>) -> std::io::Result<()> {
    let id = index.map(|index| processes[index].id().to_string());
    Command::new("kill").arg(format!("-{signal}")).args(id).status().map(drop)
}
