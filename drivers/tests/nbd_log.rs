//! What the log and the status say of a connection to an NBD server that comes and goes.

mod common;

use common::disk_bed::OK;
use common::nbd_bed::{MS, NbdBed, SECOND};
use common::nbd_server::NbdServer;
use drivers::drive::LinkStatus;
use log::{LevelFilter, Log, Metadata, Record};
use std::cell::RefCell;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the lines of each thread apart: each test has its own.
struct Lines;

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

/// A server, and a log that is empty so far.
fn bed() -> NbdBed {
    let _ = log::set_logger(&Lines);
    log::set_max_level(LevelFilter::Info);
    NbdBed::new(NbdServer::new(512))
}

/// What was logged since the last call.
fn lines() -> Vec<String> {
    LINES.take()
}

fn link(bed: &NbdBed) -> LinkStatus {
    let mut status = None;
    bed.disks.for_each(|disk| status = disk.link_status());
    status.unwrap()
}

#[test]
fn a_loss_is_one_line_and_the_return_another() {
    let bed = bed();
    let mut guest = bed.guest();
    guest.put_write(0, 3, 512, 7);
    guest.kick();
    bed.sleep(SECOND, &mut [&mut guest]);
    lines();
    bed.server.state().is_prompt = false;
    guest.put_write(1, 4, 512, 7);
    guest.put_write(2, 5, 512, 7);
    guest.kick();
    bed.turns(5, &mut [&mut guest]);
    bed.server.kill();
    bed.sleep(20 * SECOND, &mut [&mut guest]);
    assert_eq!(lines(), ["nbd:10.0.0.1:10809/disk: the server ended the connection"]);
    assert_eq!(link(&bed), LinkStatus { is_up: false, reconnects: 0, replayed: 0 });
    (bed.server.state().is_up, bed.server.state().is_prompt) = (true, true);
    bed.sleep(3 * SECOND, &mut [&mut guest]);
    assert_eq!(guest.statuses(3), [OK; 3]);
    let [line] = &lines()[..] else { panic!("more than one line") };
    assert!(line.contains("connected again; 2 commands were sent again; 1 writes were answered"), "{line}");
    assert_eq!(link(&bed), LinkStatus { is_up: true, reconnects: 1, replayed: 2 });
}

#[test]
fn a_server_that_comes_back_to_no_commands_is_back_once_it_stays() {
    let bed = bed();
    let mut guest = bed.guest();
    bed.sleep(SECOND, &mut [&mut guest]);
    lines();
    bed.server.cut();
    bed.sleep(3 * SECOND, &mut [&mut guest]);
    assert_eq!(lines().len(), 1);
    bed.sleep(4 * SECOND, &mut [&mut guest]);
    assert_eq!(lines(), ["nbd:10.0.0.1:10809/disk: connected again; 0 commands were sent again"]);
    // And it sleeps without an end.
    assert_eq!(bed.disks.deadline_ns(), None);
}

/// Minutes of a server that ends each connection as soon as it is up.
#[test]
fn a_server_that_takes_connections_and_ends_them_does_not_fill_the_log() {
    let bed = bed();
    let mut guest = bed.guest();
    bed.sleep(SECOND, &mut [&mut guest]);
    lines();
    for _ in 0..1500 {
        bed.server.cut();
        bed.sleep(137 * MS, &mut [&mut guest]);
    }
    let lines = lines();
    assert!((3..6).contains(&lines.len()), "{lines:?}");
    assert!(lines[1].ends_with(" times so far"), "{lines:?}");
    assert!(link(&bed).reconnects > 10, "{:?}", link(&bed));
}

/// Likewise, but for a command that is answered on each connection.
#[test]
fn a_server_that_answers_one_command_on_each_connection_does_not_fill_the_log() {
    let bed = bed();
    let mut guest = bed.guest();
    lines();
    for round in 0..300 {
        guest.put_write(round % 4, 3, 512, 7);
        guest.kick();
        bed.sleep(200 * MS, &mut [&mut guest]);
        bed.server.cut();
    }
    let lines = lines();
    assert!((4..=26).contains(&lines.len()), "{lines:?}");
}
