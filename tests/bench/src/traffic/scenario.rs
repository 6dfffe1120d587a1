//! What is measured: scenario, frame sizes, number of flows.

use std::fmt;
use std::str::FromStr;

use super::network::Place;

/// What the device under test has to do with each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scenario {
    /// Nothing: what comes in on one side goes out on the other. The rig's own
    /// limit.
    Io,
    /// The work of an NVE.
    Nve {
        /// Where the VMs of a pair are.
        place: Place,
        /// With anti-spoofing, a stateful security group and a meter.
        stateful: bool,
    },
}

impl Scenario {
    /// The eight scenarios of an NVE.
    pub const ALL: [Scenario; 8] = {
        use Place::{Across, AcrossRouted, Local, LocalRouted};
        [
            Scenario::nve(Local, false),
            Scenario::nve(Local, true),
            Scenario::nve(Across, false),
            Scenario::nve(Across, true),
            Scenario::nve(LocalRouted, false),
            Scenario::nve(LocalRouted, true),
            Scenario::nve(AcrossRouted, false),
            Scenario::nve(AcrossRouted, true),
        ]
    };

    const fn nve(place: Place, stateful: bool) -> Scenario {
        Scenario::Nve { place, stateful }
    }

    /// What it is, for tables.
    pub const fn title(self) -> &'static str {
        let (place, stateful) = match self {
            Scenario::Io => return "no work",
            Scenario::Nve { place, stateful } => (place, stateful),
        };
        match (place, stateful) {
            (Place::Local, false) => "same NVE, same subnet",
            (Place::Local, true) => "same NVE, same subnet, stateful",
            (Place::Across, false) => "different NVEs, same subnet",
            (Place::Across, true) => "different NVEs, same subnet, stateful",
            (Place::LocalRouted, false) => "same NVE, different subnets",
            (Place::LocalRouted, true) => "same NVE, different subnets, stateful",
            (Place::AcrossRouted, false) => "different NVEs, different subnets",
            (Place::AcrossRouted, true) => "different NVEs, different subnets, stateful",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario::Nve { place, stateful } = *self else {
            return f.write_str("io");
        };
        let number = match place {
            Place::Local => 1,
            Place::Across => 2,
            Place::LocalRouted => 3,
            Place::AcrossRouted => 4,
        };
        write!(f, "S{number}{}", if stateful { 'b' } else { 'a' })
    }
}

/// A text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown(&'static str);

impl Unknown {
    /// The text is not one of those that `what` lists.
    pub const fn expected(what: &'static str) -> Unknown {
        Unknown(what)
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for Unknown {}

impl FromStr for Scenario {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Scenario, Unknown> {
        let mut all = Scenario::ALL.into_iter().chain([Scenario::Io]);
        all.find(|scenario| scenario.to_string().eq_ignore_ascii_case(text))
            .ok_or(Unknown("S1a, S1b, S2a, ... S4b"))
    }
}

/// Sizes of frames, Ethernet header to FCS, as a VM sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sizes {
    /// 64 bytes.
    Small,
    /// 64, 570 and 1518 bytes, 7 to 4 to 1: 354 on average.
    Imix,
    /// 1518 bytes.
    Large,
}

/// Bytes of the FCS, which is not in frames that software sees.
pub const FCS: usize = 4;

const SMALL: usize = 64;
const MIDDLE: usize = 570;
const LARGE: usize = 1518;

impl Sizes {
    /// All of them.
    pub const ALL: [Sizes; 3] = [Sizes::Small, Sizes::Imix, Sizes::Large];

    /// Lengths that occur, with FCS.
    pub const fn lengths(self) -> &'static [usize] {
        match self {
            Sizes::Small => &[SMALL],
            Sizes::Imix => &[SMALL, MIDDLE, LARGE],
            Sizes::Large => &[LARGE],
        }
    }

    /// Which of the lengths follow each other, for ever.
    pub const fn pattern(self) -> &'static [u8] {
        match self {
            Sizes::Small | Sizes::Large => &[0],
            Sizes::Imix => &[0, 1, 0, 0, 1, 0, 2, 0, 1, 0, 1, 0],
        }
    }

    /// Mean length with FCS.
    pub fn mean(self) -> f64 {
        let length = |class: &u8| self.lengths().get(usize::from(*class)).copied();
        let sum: usize = self.pattern().iter().filter_map(length).sum();
        sum as f64 / self.pattern().len() as f64
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sizes::Small => "64",
            Sizes::Imix => "imix",
            Sizes::Large => "1518",
        })
    }
}

impl FromStr for Sizes {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Sizes, Unknown> {
        let mut all = Sizes::ALL.into_iter();
        all.find(|sizes| sizes.to_string() == text)
            .ok_or(Unknown("64, imix or 1518"))
    }
}

/// A number of flows, both directions together; 1 is one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flows(u32);

impl Flows {
    /// Most that there are ports for.
    pub const MAX: u32 = 2_000_000;

    /// What a full run measures.
    pub const ALL: [Flows; 4] = [Flows(1), Flows(1_000), Flows(100_000), Flows(1_000_000)];

    /// Between one and [`Flows::MAX`].
    pub const fn new(flows: u32) -> Option<Flows> {
        match flows {
            1..=Flows::MAX => Some(Flows(flows)),
            _ => None,
        }
    }

    /// Conversations, each of two flows.
    pub const fn conversations(self) -> u32 {
        if self.0 < 2 { 1 } else { self.0 / 2 }
    }
}

impl fmt::Display for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            flows if flows % 1_000_000 == 0 => write!(f, "{}M", flows / 1_000_000),
            flows if flows % 1_000 == 0 => write!(f, "{}k", flows / 1_000),
            flows => write!(f, "{flows}"),
        }
    }
}

impl FromStr for Flows {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Flows, Unknown> {
        let (digits, unit) = match text.as_bytes() {
            [.., b'k'] => (text.trim_end_matches('k'), 1_000),
            [.., b'M'] => (text.trim_end_matches('M'), 1_000_000),
            _ => (text, 1),
        };
        let flows = digits.parse().ok().and_then(|n: u32| n.checked_mul(unit));
        flows
            .and_then(Flows::new)
            .ok_or(Unknown("1 to 2000000, like 1k or 1M"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.to_string().parse(), Ok(scenario));
        }
        assert_eq!("s2B".parse(), Ok(Scenario::nve(Place::Across, true)));
        assert!("S5a".parse::<Scenario>().is_err());
        for sizes in Sizes::ALL {
            assert_eq!(sizes.to_string().parse(), Ok(sizes));
        }
        for (text, flows) in [
            ("1", 1),
            ("1k", 1_000),
            ("100k", 100_000),
            ("1M", 1_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Flows(flows)));
            assert_eq!(Flows(flows).to_string(), text);
        }
        for bad in ["", "0", "k", "3M", "-1", "5000M"] {
            assert!(bad.parse::<Flows>().is_err(), "{bad}");
        }
    }

    #[test]
    fn imix_is_354_bytes_on_average() {
        assert!((353.0..354.0).contains(&Sizes::Imix.mean()));
        let count = |class| {
            Sizes::Imix
                .pattern()
                .iter()
                .filter(|c| **c == class)
                .count()
        };
        assert_eq!([count(0), count(1), count(2)], [7, 4, 1]);
    }
}
