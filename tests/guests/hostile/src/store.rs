//! Our nodes in xenstore, rewritten; and those of others, which is refused.

use alloc::format;
use alloc::string::{String, ToString};
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use kernel::arch::timer::now_ns;
use kernel::xen::sched::yield_processor;
use kernel::xen::store::Store;

use crate::life::Guest;
use crate::random::Random;

const OPERATIONS: usize = 6;
/// How long xenstored may take.
const PATIENCE_NS: u64 = 2_000_000_000;
/// Nodes of our own that come and go.
const OWN_NODES: usize = 40;

/// Some operations on nodes of our devices, on their backends', and on others.
pub fn nodes(guest: &mut Guest, random: &mut Random) {
    let store = guest.store.clone();
    for _ in 0..OPERATIONS {
        let done = wait(&store, operation(&store, random));
        guest.refusals += u64::from(done != Some(true));
    }
}

/// One of them. Returns whether it was done.
async fn operation(store: &Store, random: &mut Random) -> bool {
    let Some(node) = own_node(store, random).await else { return false };
    match random.below(8) {
        0 | 1 => store.write(&node, &value(random)).await.is_ok(),
        2 => {
            let state = random.below(9).to_string();
            let directory = node.rsplit_once('/').map_or("", |(directory, _)| directory);
            store.write(&format!("{directory}/state"), &state).await.is_ok()
        }
        3 => store.watch(&node, &random.below(1000).to_string()).await.is_ok(),
        4 => {
            let directory = node.rsplit_once('/').map_or("", |(directory, _)| directory);
            let Ok(backend) = store.read(&format!("{directory}/backend")).await else { return false };
            let name = random.of(&["state", "online", "frontend", "target", "garbage"]);
            store.write(&format!("{backend}/{name}"), &value(random)).await.is_ok()
        }
        5 => store.remove(&node).await.is_ok(),
        _ => {
            let path = format!("data/{}", random.below(OWN_NODES));
            if random.once_in(2) {
                store.write(&path, &value(random)).await.is_ok()
            } else {
                store.remove(&path).await.is_ok()
            }
        }
    }
}

/// A node of one of our devices.
async fn own_node(store: &Store, random: &mut Random) -> Option<String> {
    let mut path = String::from("device");
    for _ in 0..3 {
        let names = store.directory(&path).await.ok()?;
        if names.is_empty() {
            break;
        }
        path = format!("{path}/{}", names[random.below(names.len())]);
    }
    Some(path)
}

/// What a node might hold, and what none should.
fn value(random: &mut Random) -> String {
    match random.below(6) {
        0 => String::new(),
        1 => random.any().to_string(),
        2 => random.below(9).to_string(),
        3 => "/local/domain/0/backend".into(),
        4 => "x".repeat(random.below(1800)),
        _ => "\u{fffd}../%s%n\n".into(),
    }
}

/// What comes of it, in time.
fn wait<T>(store: &Store, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let end_ns = now_ns() + PATIENCE_NS;
    while now_ns() < end_ns {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(result);
        }
        yield_processor();
        store.pump();
    }
    None
}
