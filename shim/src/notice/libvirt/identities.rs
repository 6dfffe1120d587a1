//! Which link is which host. A machine that was copied often has the UUID of the first
//! one, and a host's name and UUID are what it says itself.
//!
//! Invariant: of two links that say the same name or UUID, the first one keeps it as long
//! as the process lives, whether it is connected or not, unless it says another. So none
//! is taken for a host that is only away.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::domain::HostName;

/// Another link has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Taken {
    #[error("its UUID {0} is that of another host: set host_uuid in its libvirtd.conf")]
    Uuid(Uuid),
    #[error("its name {0:?} is that of another host: set name in its [[libvirt.hosts]]")]
    Name(String),
}

/// Hosts by the number of their link.
#[derive(Debug, Default)]
pub(super) struct Identities(BTreeMap<usize, HostName>);

impl Identities {
    /// Has the link be that host, instead of what it was.
    pub(super) fn claim(&mut self, link: usize, host: &HostName) -> Result<(), Taken> {
        for (_, other) in self.0.iter().filter(|(other, _)| **other != link) {
            if other.uuid == host.uuid {
                return Err(Taken::Uuid(host.uuid));
            }
            if other.name == host.name {
                return Err(Taken::Name(host.name.clone()));
            }
        }
        self.0.insert(link, host.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, uuid: u128) -> HostName {
        HostName {
            name: name.into(),
            uuid: Uuid::from_u128(uuid),
        }
    }

    #[test]
    fn the_first_to_say_a_name_or_a_uuid_keeps_it() {
        let mut identities = Identities::default();
        let mut claim = |link, name, uuid| identities.claim(link, &host(name, uuid));
        assert_eq!(claim(1, "a", 1), Ok(()));
        assert_eq!(claim(0, "b", 1), Err(Taken::Uuid(Uuid::from_u128(1))));
        assert_eq!(claim(0, "a", 2), Err(Taken::Name("a".into())));
        // Connected again, it is the same.
        assert_eq!(claim(1, "a", 1), Ok(()));
        assert_eq!(claim(0, "b", 1), Err(Taken::Uuid(Uuid::from_u128(1))));
        assert_eq!(claim(0, "b", 2), Ok(()));
        // One that was set up anew gives up what it was.
        assert_eq!(claim(1, "a", 3), Ok(()));
        assert_eq!(claim(2, "c", 1), Ok(()));
        assert_eq!(claim(1, "a", 1), Err(Taken::Uuid(Uuid::from_u128(1))));
    }
}
