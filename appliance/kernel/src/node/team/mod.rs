//! The processors that share an NVE.
//!
//! Each has queues, buffers, a flow cache, connections and tables of its own, and
//! forwards by them alone. The first one also has the control session: what that changes
//! in its tables the others change too, by [`Mail`], in the same order. Of VMs that others
//! hear it is told ([`Team::hear`]), and tells the rest. A frame that came
//! in where it does not belong ([`Steering`](nve_datapath::steering)) goes over a ring
//! ([`Links`]). What all of them use is meters, and they have a lock each.
//!
//! Nobody waits for anybody: not for room in a ring (the frame is dropped and counted),
//! and not for mail to be read. Only the control session's answers wait, so that what was
//! acknowledged holds on every processor.

mod links;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use nve_agent::{Change, OutOfMemory};
use nve_datapath::steering::{self, Steering};
use nve_datapath::{Counters, NextHop};
use nve_nic::Statistics;
use nve_protocol::handover::{Known, TakeOver};
use nve_protocol::inspect::{Part, Place, Question};
use spin::Mutex;

pub use links::Links;

/// Room in a mailbox for what must be told: it is kept free of what can be refused.
const SPARE: usize = 16;

/// Mail in a box that its owner has not read, beyond which nothing that can wait is sent.
const BACKLOG: usize = 1024;

/// What the first processor sends to each of the others.
#[derive(Debug)]
pub enum Mail {
    /// A step of a transaction, or something beside it.
    Change(Change),
    /// A next hop was resolved.
    NextHop(NextHop),
    /// A question was left: [`Team::question`].
    Question,
}

/// Whether a processor has a use for what another NVE knew: a connection is for the one
/// that its packets are for.
pub fn concerns(steering: &Steering, number: usize, told: &TakeOver) -> bool {
    match &told.known {
        Known::Level(_) => true,
        Known::Connection(connection) => {
            let place = steering.between(connection.local, connection.remote);
            place == steering::Place::Owner(number)
        }
    }
}

/// Counters of one processor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Of its queues of trunk and uplink.
    pub statistics: [Statistics; 2],
    /// Drops and answers.
    pub counters: Counters,
    /// Frames that came in here and were another processor's.
    pub handed: u64,
    /// Nanoseconds that its loop was busy.
    pub busy: u64,
}

impl Report {
    /// Adds what another processor counted.
    pub fn add(&mut self, other: &Report) {
        for (own, other) in self.statistics.iter_mut().zip(other.statistics) {
            own.rx_packets += other.rx_packets;
            own.rx_bytes += other.rx_bytes;
            own.tx_packets += other.tx_packets;
            own.tx_bytes += other.tx_bytes;
            own.device_errors += other.device_errors;
        }
        for (own, other) in self.counters.drops.iter_mut().zip(other.counters.drops) {
            *own += other;
        }
        self.counters.answers += other.counters.answers;
        self.handed += other.handed;
        self.busy += other.busy;
    }
}

/// What others do to one processor. On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Seat {
    /// Whether it has to be woken.
    sleeps: AtomicBool,
    /// Mail that it has not read.
    unread: AtomicUsize,
    mail: Mutex<VecDeque<Mail>>,
    /// The newest.
    report: Mutex<Report>,
    /// What it is asked, with a number for the answer.
    question: Mutex<Option<(u32, Question)>>,
    /// Its answer to the question with that number.
    answer: Mutex<Option<(u32, Vec<Part>)>>,
}

impl Seat {
    fn make_room(&self, mail: &Mail) -> Result<(), OutOfMemory> {
        let room = match mail {
            Mail::Change(Change::Commit(_)) => 1,
            _ => SPARE + 1,
        };
        self.mail.lock().try_reserve(room).map_err(|_| OutOfMemory)
    }

    /// There is room, and only the first processor puts anything.
    fn put(&self, mail: Mail) {
        self.mail.lock().push_back(mail);
        self.unread.fetch_add(1, Ordering::Release);
    }
}

/// All processors of an NVE.
#[derive(Debug)]
pub struct Team {
    seats: Vec<Seat>,
    /// VAPs on standby whose VM was heard elsewhere than on the first.
    heard: Mutex<Vec<Place>>,
    /// Whether there are any.
    has_heard: AtomicBool,
    /// Whether tables are no more the same: only a restart mends that.
    is_split: AtomicBool,
    /// Has a processor's halt end.
    wake: fn(usize),
}

impl Team {
    /// So many processors; `wake` ends the halt of one, by its number from 0.
    pub fn new(processors: usize, wake: fn(usize)) -> Arc<Team> {
        let mut seats = Vec::new();
        seats.resize_with(processors, Seat::default);
        Arc::new(Team {
            seats,
            heard: Mutex::new(Vec::new()),
            has_heard: AtomicBool::new(false),
            is_split: AtomicBool::new(false),
            wake,
        })
    }

    /// How many they are.
    pub fn processors(&self) -> usize {
        self.seats.len()
    }

    /// Sends the same to all but the first. Either all get it, or none. What can be
    /// refused leaves room for what must not be.
    pub fn tell(&self, mail: impl Fn() -> Mail) -> Result<(), OutOfMemory> {
        let others = || self.seats.iter().enumerate().skip(1);
        for (_, seat) in others() {
            seat.make_room(&mail())?;
        }
        for (number, seat) in others() {
            seat.put(mail());
            self.wake(number);
        }
        Ok(())
    }

    /// Asks one of the others, in place of what it was asked before.
    pub fn ask(&self, number: usize, asked: u32, question: &Question) -> Result<(), OutOfMemory> {
        let seat = self.seats.get(number).ok_or(OutOfMemory)?;
        seat.make_room(&Mail::Question)?;
        *seat.question.lock() = Some((asked, *question));
        seat.put(Mail::Question);
        self.wake(number);
        Ok(())
    }

    /// What one was asked last, with a number for the answer, if it has not answered.
    pub fn question(&self, number: usize) -> Option<(u32, Question)> {
        self.seats.get(number)?.question.lock().take()
    }

    /// The oldest mail of one. It counts as unread until [`Team::has_read`].
    pub fn read(&self, number: usize) -> Option<Mail> {
        let seat = self.seats.get(number)?;
        if seat.unread.load(Ordering::Acquire) == 0 {
            return None;
        }
        seat.mail.lock().pop_front()
    }

    /// One has done what its mail said.
    pub fn has_read(&self, number: usize) {
        if let Some(seat) = self.seats.get(number) {
            seat.unread.fetch_sub(1, Ordering::Release);
        }
    }

    /// Whether one has mail.
    pub fn has_mail(&self, number: usize) -> bool {
        let seat = self.seats.get(number);
        seat.is_some_and(|seat| seat.unread.load(Ordering::Acquire) > 0)
    }

    /// Whether all have done what they were told.
    pub fn is_level(&self) -> bool {
        let mut unread = self.seats.iter().map(|seat| &seat.unread);
        let all_read = unread.all(|unread| unread.load(Ordering::Acquire) == 0);
        // Who cannot do what it was told says so before it counts as read.
        all_read && !self.is_split()
    }

    /// Whether somebody has so much to do that nothing more should be sent.
    pub fn is_behind(&self) -> bool {
        let mut unread = self.seats.iter().map(|seat| &seat.unread);
        unread.any(|unread| unread.load(Ordering::Relaxed) > BACKLOG)
    }

    /// Tells the first that the VM of a VAP on standby was heard.
    pub fn hear(&self, place: Place) -> Result<(), OutOfMemory> {
        let mut heard = self.heard.lock();
        heard.try_reserve(1).map_err(|_| OutOfMemory)?;
        heard.push(place);
        drop(heard);
        self.has_heard.store(true, Ordering::Release);
        self.wake(0);
        Ok(())
    }

    /// Whether a VM was heard that the first does not know of.
    pub fn has_heard(&self) -> bool {
        self.has_heard.load(Ordering::Acquire)
    }

    /// The VAPs whose VMs were heard since the last call.
    pub fn take_heard(&self) -> Vec<Place> {
        self.has_heard.store(false, Ordering::Release);
        // What comes from now on is there when the next call is due.
        core::mem::take(&mut *self.heard.lock())
    }

    /// Somebody could not do what the others did.
    pub fn split(&self) {
        self.is_split.store(true, Ordering::Relaxed);
        self.wake(0);
    }

    /// Whether somebody could not.
    pub fn is_split(&self) -> bool {
        self.is_split.load(Ordering::Relaxed)
    }

    /// Leaves one's counters for the first.
    pub fn publish(&self, number: usize, report: &Report) {
        if let Some(seat) = self.seats.get(number) {
            *seat.report.lock() = *report;
        }
    }

    /// The newest counters of all but the first.
    pub fn reports(&self) -> impl Iterator<Item = Report> + '_ {
        self.seats.iter().skip(1).map(|seat| *seat.report.lock())
    }

    /// Answers a question, by the one that was asked.
    pub fn answer(&self, number: usize, question: u32, parts: Vec<Part>) {
        if let Some(seat) = self.seats.get(number) {
            *seat.answer.lock() = Some((question, parts));
            self.wake(0);
        }
    }

    /// The answer of one to a question, if it is there.
    pub fn take_answer(&self, number: usize, question: u32) -> Option<Vec<Part>> {
        let mut answer = self.seats.get(number)?.answer.lock();
        let (of, parts) = answer.take()?;
        (of == question).then_some(parts)
    }

    /// Wakes a processor that halts or is about to. What it is woken for must be there.
    pub fn wake(&self, number: usize) {
        // Either it sees what is there before it halts, or it is seen here to sleep.
        fence(Ordering::SeqCst);
        let seat = self.seats.get(number);
        if seat.is_some_and(|seat| seat.sleeps.load(Ordering::Relaxed)) {
            (self.wake)(number);
        }
    }

    /// A processor is about to halt: whoever has something for it has to wake it from
    /// now on. It must look once more before it does.
    pub fn lie_down(&self, number: usize) {
        if let Some(seat) = self.seats.get(number) {
            seat.sleeps.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
        }
    }

    /// It does not halt any more.
    pub fn get_up(&self, number: usize) {
        if let Some(seat) = self.seats.get(number) {
            seat.sleeps.store(false, Ordering::Relaxed);
        }
    }
}
