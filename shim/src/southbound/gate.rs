//! Limits how many connections may be unauthenticated at once, in all and for
//! each address, so that strangers cost little and cannot lock an NVE out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts unauthenticated connections.
#[derive(Debug)]
pub(super) struct Gate {
    most: usize,
    most_per_address: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place that is given back when dropped.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Gate {
    pub(super) fn new(most: usize, most_per_address: usize) -> Arc<Self> {
        Arc::new(Gate {
            most,
            most_per_address,
            open: Mutex::default(),
        })
    }

    /// A place for a connection from `address`; `None` if there is none.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Pass> {
        let address = address.to_canonical();
        let mut open = self.lock();
        if open.total >= self.most {
            return None;
        }
        let count = open.by_address.entry(address).or_default();
        if *count >= self.most_per_address {
            return None;
        }
        *count += 1;
        open.total += 1;
        Some(Pass {
            gate: Arc::clone(self),
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut open = self.gate.lock();
        open.total = open.total.saturating_sub(1);
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_given_back() {
        let gate = Gate::new(3, 2);
        let (one, two): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let first = gate.enter(one).unwrap();
        let _second = gate.enter(one).unwrap();
        assert!(gate.enter(one).is_none(), "most of one address");
        let _third = gate.enter(two).unwrap();
        assert!(gate.enter(two).is_none(), "most in all");
        drop(first);
        let again = gate.enter(two).unwrap();
        drop((again, _second, _third));
        assert!(gate.lock().by_address.is_empty(), "nothing is remembered");
        assert_eq!(gate.lock().total, 0);
    }
}
