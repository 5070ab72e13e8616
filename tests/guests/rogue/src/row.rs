//! A thousand lies in a row, each beside an honest request that is under way with it.

use alloc::boxed::Box;
use core::error::Error;

use kernel::limits::PAGE_BYTES;
use kernel::logger;

use crate::answer::Answer;
use crate::honest::{SECTORS_PER_PAGE, pattern};
use crate::memory::Memory;
use crate::session::{Kind, Session};

/// Lies that are told together.
const PAIRS: usize = 20;
const ROUNDS: u64 = 50;
/// Descriptors of a request.
const DESCRIPTORS: usize = 3;

/// How many came back as they must.
#[derive(Default)]
struct Tally {
    refused: usize,
    right: usize,
}

/// Tells them.
pub fn tell(session: &mut Session) -> Result<(), Box<dyn Error>> {
    let mut tally = Tally::default();
    for round in 0..ROUNDS {
        together(session, round, &mut tally)?;
    }
    let in_use = core::mem::take(&mut session.in_use);
    let Tally { refused, right } = tally;
    let end = if matches!(session.memory, Memory::Shared) {
        alloc::string::String::new()
    } else {
        alloc::format!("; in use: {in_use}")
    };
    log::info!("rogue: in a row: {refused} lies refused, {right} honest requests right{end}");
    logger::pump();
    Ok(())
}

/// Goes on without an end.
pub fn go_on(session: &mut Session) -> Result<(), Box<dyn Error>> {
    for round in 0.. {
        together(session, round, &mut Tally::default())?;
    }
    Ok(())
}

/// Lies and honest requests, in turn, made available by one store. The honest ones write in even rounds, and read it back in the
/// next.
fn together(session: &mut Session, round: u64, tally: &mut Tally) -> Result<(), Box<dyn Error>> {
    let kind = Kind::BOTH[usize::from(round.is_multiple_of(2))];
    let content = |pair: usize| pattern((round / 2) << 8 | pair as u64);
    for pair in 0..PAIRS {
        let (honest, lie) = (2 * pair, 2 * pair + 1);
        let sector = pair as u64 * SECTORS_PER_PAGE;
        if kind == Kind::Write {
            session.pages.write(Session::data(pair), &content(pair));
        } else {
            session.pages.fill(Session::data(pair), PAGE_BYTES, 0);
        }
        let data = session.page(pair, kind);
        offer(session, honest, kind, sector, data);
        let nowhere = session.nowhere[(pair + round as usize) % session.nowhere.len()];
        let kind = Kind::BOTH[pair % 2];
        offer(session, lie, kind, sector, Session::at(nowhere, PAGE_BYTES as u32, kind));
    }
    session.disk.kick();
    let waited = session.disk.wait();
    session.in_use += session.memory.take_back();
    waited.map_err(|answer| alloc::format!("in a row: {answer}"))?;
    for pair in 0..PAIRS {
        let is_right = kind == Kind::Write || session.holds(pair, &content(pair));
        tally.right += usize::from(is_right && session.answer(2 * pair) == Answer::OK);
        tally.refused += usize::from(session.answer(2 * pair + 1) == Answer::IO_ERROR);
    }
    Ok(())
}

fn offer(session: &mut Session, slot: usize, kind: Kind, sector: u64, data: crate::disk::Buffer) {
    let chain = [session.header(slot, kind, sector), data, session.status(slot)];
    session.disk.offer((slot * DESCRIPTORS) as u16, &chain);
}
