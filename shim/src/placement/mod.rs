//! Where each port is: on which host, behind which VLAN tag.
//!
//! Events and inventories are level-triggered: each tells a VM's whole state, so
//! a lost one delays and never corrupts. A VM goes only when its manager says so: by
//! an inventory that is newer than what is known of the VM, or by `vmdeleted` where
//! there are no inventories.
//!
//! A VM that [moves](moves) while it runs is where an NVE hears it, before its manager
//! tells so.
//!
//! [`plan`] turns what managers tell into mutations; [`Claims`] indexes the
//! result by port and by tag for the compiler; [`alarms`] names contradictions.

pub mod alarms;
mod claims;
mod moves;
mod plan;

pub use claims::{Aside, Claim, Claims};
pub use moves::{Awoken, plan_awake, plan_settled};
pub use plan::{Outcome, Teller, plan_event, plan_inventory};

#[cfg(test)]
mod tests;
