//! The first processor's datapath with those that do as it does: what the control
//! session works on.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use nve_agent::{Change, Node as _, OutOfMemory};
use nve_datapath::steering::Steering;
use nve_datapath::{Datapath, Nanos, NextHop, Tables};
use nve_protocol::handover::TakeOver;
use nve_protocol::inspect::{Part, Place, Question};

use super::inquiry::Inquiry;
use super::team::{Links, Mail, Team, concerns};

/// What the first of several processors has to do with the others.
pub struct Lead {
    team: Arc<Team>,
    steering: Steering,
    inquiry: Inquiry,
    /// Up to which awakening of a VAP the others were told.
    awakenings: u64,
    /// Next hops that the others have not been told of.
    learned: VecDeque<NextHop>,
}

impl Lead {
    /// Of the processors that `links` lead to.
    pub fn new(links: &Links) -> Self {
        Lead {
            team: links.team().clone(),
            steering: *links.steering(),
            awakenings: 0,
            inquiry: Inquiry::new(links.team().clone(), *links.steering()),
            learned: VecDeque::new(),
        }
    }

    /// The processors.
    pub fn team(&self) -> &Team {
        &self.team
    }

    /// Has VAPs wake whose VM was heard on another processor.
    pub fn heed(&mut self, now: Nanos, datapath: &mut Datapath) {
        if self.team.has_heard() {
            for place in self.team.take_heard() {
                datapath.wake(now, &place);
            }
        }
        self.tell_awake(datapath.tables());
    }

    /// Tells the others of VAPs that woke.
    fn tell_awake(&mut self, tables: &Tables) {
        while self.awakenings < tables.awakenings() {
            let Some((number, place)) = tables.next_awake(self.awakenings) else {
                self.awakenings = tables.awakenings();
                return;
            };
            let wake = || Mail::Change(Change::Wake(place));
            if self.team.tell(wake).is_err() {
                return;
            }
            self.awakenings = number;
        }
    }

    /// Tells the others of next hops that the datapath has learned of, and of VAPs that
    /// woke.
    pub fn pass_on(&mut self, datapath: &mut Datapath) {
        self.tell_awake(datapath.tables());
        for next in datapath.take_learned() {
            if self.learned.try_reserve(1).is_err() {
                return self.team.split();
            }
            self.learned.push_back(next);
        }
        while let Some(next) = self.learned.front().copied() {
            if self.team.tell(|| Mail::NextHop(next)).is_err() {
                return;
            }
            self.learned.pop_front();
        }
    }
}

/// Tables and answers of an NVE, whatever the number of its processors.
pub struct Led<'a> {
    /// The first processor's.
    pub datapath: &'a mut Datapath,
    /// `None` if it is the only one.
    pub lead: Option<&'a mut Lead>,
}

impl Led<'_> {
    /// Whether what was done holds on all processors.
    pub fn is_level(&self) -> bool {
        self.team().is_none_or(Team::is_level)
    }

    /// Whether nothing more should be done before the others have done what was.
    pub fn is_behind(&self) -> bool {
        self.team().is_some_and(Team::is_behind)
    }

    /// The answer that others were asked for, once it is whole.
    pub fn take_answer(&mut self, now: Nanos) -> Option<Vec<Part>> {
        self.lead.as_mut()?.inquiry.poll(now, self.datapath)
    }

    /// Has the others forget the transaction that is open.
    pub fn abandon(&mut self) {
        // Who is not told forgets it when the next one begins.
        let _ = self.tell(&Change::Abandon);
    }

    /// Whether others have been asked and have not answered.
    pub fn awaits_answer(&self) -> bool {
        self.lead
            .as_ref()
            .is_some_and(|lead| lead.inquiry.is_open())
    }

    /// The processors, if there are several.
    pub fn team(&self) -> Option<&Team> {
        self.lead.as_ref().map(|lead| lead.team())
    }
}

impl nve_agent::Node for Led<'_> {
    type Tables = Tables;

    fn tables(&self) -> &Tables {
        self.datapath.tables()
    }

    fn update<R>(&mut self, now: Nanos, change: impl FnOnce(&mut Tables) -> R) -> R {
        self.datapath.update(now, change)
    }

    fn tell(&mut self, change: &Change) -> Result<(), OutOfMemory> {
        let Some(lead) = &mut self.lead else {
            return Ok(());
        };
        // What was learned of next hops was learned before this, and who woke did so.
        lead.pass_on(self.datapath);
        let told = lead.team.tell(|| Mail::Change(*change));
        if told.is_err() && matches!(change, Change::Commit(_)) {
            lead.team.split();
        }
        told
    }

    fn answer(&mut self, now: Nanos, question: &Question) -> Option<Vec<Part>> {
        match &mut self.lead {
            Some(lead) => lead.inquiry.ask(now, question, self.datapath),
            None => Some(self.datapath.answer(now, question).into_list()),
        }
    }

    fn take_over(&mut self, now: Nanos, told: &TakeOver) {
        let lead = self.lead.as_ref();
        if lead.is_none_or(|lead| concerns(&lead.steering, 0, told)) {
            self.datapath.take_over(now, told);
        }
    }

    fn wake(&mut self, now: Nanos, place: &Place) {
        self.datapath.wake(now, place);
    }
}
