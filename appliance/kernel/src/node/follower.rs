//! What a processor does that is not the first one of its NVE: it forwards, and reads
//! its mail.

use alloc::sync::Arc;

use nve_agent::{Change, Replica};
use nve_datapath::steering::Steering;
use nve_datapath::{Datapath, Nanos, Tables};
use nve_nic::Nic;

use super::forward::Forwarder;
use super::team::{Links, Mail, Report, Team, concerns};
use super::{House, Load, Looped, Ports, Turn};

/// Most mail that is read before frames have their turn again.
const LETTERS: usize = 32;

/// Between two reports of counters while there is something to do, in nanoseconds.
const REPORT: u64 = 100_000_000;

/// A processor's part of an NVE.
pub struct Follower<N: Nic> {
    forwarder: Forwarder<N>,
    replica: Replica<Tables>,
    team: Arc<Team>,
    steering: Steering,
    own: usize,
    /// Up to which awakening of a VAP the first was told.
    awakenings: u64,
    /// When the datapath's timers are due.
    due: Nanos,
    report: Nanos,
    house: House,
    load: Load,
}

impl<N: Nic> Follower<N> {
    /// The part that has these queues and this datapath.
    pub fn new(ports: Ports<N>, datapath: Datapath, links: Links) -> Self {
        let (team, own) = (links.team().clone(), links.own());
        let steering = *links.steering();
        Follower {
            forwarder: Forwarder::new(ports, datapath, Some(links)),
            replica: Replica::new(),
            team,
            steering,
            own,
            awakenings: 0,
            due: Nanos(0),
            report: Nanos(0),
            house: House::new(),
            load: Load::default(),
        }
    }

    /// The datapath, for changes that do not come by mail.
    pub fn datapath(&mut self) -> &mut Datapath {
        self.forwarder.parts().1
    }

    /// The tables in force.
    pub fn tables(&self) -> &Tables {
        self.forwarder.tables()
    }

    /// Does what the mail says; false if there was none.
    fn read_mail(&mut self, now: Nanos) -> bool {
        let mut letters = 0;
        while letters < LETTERS
            && let Some(mail) = self.team.read(self.own)
        {
            letters += 1;
            self.obey(now, mail);
            self.team.has_read(self.own);
        }
        if letters > 0 {
            self.due = Nanos(0);
            // The first may wait for it.
            self.team.wake(0);
        }
        letters > 0
    }

    fn obey(&mut self, now: Nanos, mail: Mail) {
        let (_, datapath) = self.forwarder.parts();
        match mail {
            Mail::Change(Change::TakeOver(told)) if !concerns(&self.steering, self.own, &told) => {}
            Mail::Change(change) => {
                if let Err(why) = self.replica.follow(&change, now, datapath) {
                    log::error!("processor {}: tables: {why:?}", self.own);
                    self.team.split();
                }
            }
            Mail::NextHop(next) => datapath.learn(next),
            Mail::Question => {
                if let Some((asked, question)) = self.team.question(self.own) {
                    let parts = datapath.answer(now, &question).into_list();
                    self.team.answer(self.own, asked, parts);
                }
            }
        }
    }

    /// Tells the first of VAPs that woke.
    fn report_awake(&mut self) {
        let tables = self.forwarder.tables();
        while self.awakenings < tables.awakenings() {
            let Some((number, place)) = tables.next_awake(self.awakenings) else {
                self.awakenings = tables.awakenings();
                return;
            };
            // Without memory, in the next turn.
            if self.team.hear(place).is_err() {
                return;
            }
            self.awakenings = number;
        }
    }

    fn publish(&self) {
        let report = Report {
            statistics: self.forwarder.ports().both_statistics(),
            counters: *self.forwarder.datapath().counters(),
            handed: self.forwarder.handed(),
            busy: self.load.busy,
        };
        self.team.publish(self.own, &report);
    }
}

impl<N: Nic> Looped for Follower<N> {
    fn poll(&mut self, now: Nanos) -> Turn {
        let mut busy = self.forwarder.poll(now);
        self.forwarder.drop_host_frames(now);
        busy |= self.read_mail(now);
        self.report_awake();
        if now >= self.due {
            self.due = self.forwarder.tick(now);
            self.forwarder.flush();
        }
        if now >= self.report {
            self.report = Nanos(now.0.saturating_add(REPORT));
            self.publish();
        }
        if now >= self.house.due
            && let Some(turn) = self.house.keep(now, &mut self.forwarder)
        {
            return turn;
        }
        self.load.note(now, busy);
        if busy { Turn::Busy } else { Turn::Idle }
    }

    fn deadline(&self) -> Nanos {
        self.due.min(self.house.due)
    }

    fn arm_interrupts(&mut self) -> bool {
        self.publish();
        self.forwarder.arm_interrupts()
    }

    fn disarm_interrupts(&mut self) {
        self.forwarder.disarm_interrupts();
    }
}
