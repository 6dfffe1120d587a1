//! Arithmetic on ranges of physical memory.

use heapless::Vec;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Most regions that are kept of a memory map; firmware lists a dozen.
pub const MAX_REGIONS: usize = 32;

/// Physical addresses `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// First byte behind it.
    pub end: u64,
}

impl Region {
    /// `length` bytes from `start`; cut at the end of the address space.
    pub const fn new(start: u64, length: u64) -> Region {
        Region {
            start,
            end: start.saturating_add(length),
        }
    }

    /// Length in bytes.
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether there is no byte in it.
    pub const fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// Whether both have a byte in common.
    pub const fn overlaps(&self, other: &Region) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The whole pages in it.
    pub const fn shrink_to_pages(&self) -> Region {
        Region {
            start: self.start.saturating_add(PAGE - 1) & !(PAGE - 1),
            end: self.end & !(PAGE - 1),
        }
    }

    /// The pages that it touches.
    pub const fn grow_to_pages(&self) -> Region {
        Region {
            start: self.start & !(PAGE - 1),
            end: self.end.saturating_add(PAGE - 1) & !(PAGE - 1),
        }
    }

    /// What is left of it, below and above `hole`.
    fn without(&self, hole: &Region) -> [Region; 2] {
        if !self.overlaps(hole) {
            return [*self, Region::new(0, 0)];
        }
        let below = Region {
            start: self.start,
            end: self.end.min(hole.start),
        };
        let above = Region {
            start: self.start.max(hole.end),
            end: self.end,
        };
        [below, above]
    }
}

/// The whole pages of `ram` that lie in `window` and in none of `reserved`, each
/// once even where `ram` lists it twice. Regions beyond [`MAX_REGIONS`] are left
/// unused.
pub fn usable(
    ram: impl Iterator<Item = Region>,
    reserved: &[Region],
    window: Region,
) -> Vec<Region, MAX_REGIONS> {
    let mut free: Vec<Region, MAX_REGIONS> = Vec::new();
    for region in ram {
        let clipped = Region {
            start: region.start.max(window.start),
            end: region.end.min(window.end),
        };
        let seen = free.clone();
        let mut fresh: Vec<Region, MAX_REGIONS> = Vec::new();
        push(&mut fresh, clipped);
        for region in cut(&fresh, &seen) {
            push(&mut free, region);
        }
    }
    cut(&free, reserved)
}

/// What is left of `regions` without the pages that `holes` touch.
fn cut(regions: &[Region], holes: &[Region]) -> Vec<Region, MAX_REGIONS> {
    let mut left: Vec<Region, MAX_REGIONS> = regions.iter().copied().collect();
    for hole in holes {
        let hole = hole.grow_to_pages();
        let before = core::mem::take(&mut left);
        for piece in before.iter().flat_map(|region| region.without(&hole)) {
            push(&mut left, piece);
        }
    }
    left
}

fn push(regions: &mut Vec<Region, MAX_REGIONS>, region: Region) {
    let region = region.shrink_to_pages();
    if !region.is_empty() {
        // A region that has no place is memory that stays unused.
        let _ = regions.push(region);
    }
}

/// Takes `bytes`, rounded up to pages, off the end of the largest region.
/// `None`, and no change, if no region is large enough.
pub fn take(regions: &mut [Region], bytes: u64) -> Option<Region> {
    let bytes = bytes.checked_next_multiple_of(PAGE)?;
    let largest = regions.iter_mut().max_by_key(|region| region.len())?;
    if largest.len() < bytes {
        return None;
    }
    let start = largest.end - bytes;
    let taken = Region {
        start,
        end: largest.end,
    };
    largest.end = start;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Region = Region {
        start: 0,
        end: u64::MAX,
    };

    fn region(start: u64, end: u64) -> Region {
        Region { start, end }
    }

    #[test]
    fn reserved_ranges_are_cut_out_by_whole_pages() {
        let free = usable(
            [region(0x10_0000, 0x400_0000)].into_iter(),
            &[region(0x20_0000, 0x30_0001), region(0x3ff_f800, 0x3ff_f900)],
            ALL,
        );
        assert_eq!(
            free.as_slice(),
            [region(0x10_0000, 0x20_0000), region(0x30_1000, 0x3ff_f000)]
        );
    }

    #[test]
    fn odd_edges_shrink_and_tiny_or_wrapping_regions_vanish() {
        let free = usable(
            [
                region(0x1001, 0x3fff),
                region(0x5000, 0x5fff),
                region(0x9000, 0x8000),
                Region::new(u64::MAX - 10, u64::MAX),
            ]
            .into_iter(),
            &[],
            ALL,
        );
        assert_eq!(free.as_slice(), [region(0x2000, 0x3000)]);
    }

    #[test]
    fn memory_that_is_listed_twice_is_used_once() {
        let free = usable(
            [
                region(0x1000, 0x5000),
                region(0x3000, 0x9000),
                region(0x1000, 0x9000),
                region(0, 0xa000),
            ]
            .into_iter(),
            &[],
            ALL,
        );
        let total: u64 = free.iter().map(Region::len).sum();
        assert_eq!(total, 0xa000);
        for (i, one) in free.iter().enumerate() {
            assert!(free.iter().skip(i + 1).all(|other| !one.overlaps(other)));
        }
    }

    #[test]
    fn the_window_bounds_what_is_used() {
        let free = usable(
            [region(0, 0x10_0000), region(0x10_0000, 1 << 50)].into_iter(),
            &[],
            region(0x10_0000, 1 << 39),
        );
        assert_eq!(free.as_slice(), [region(0x10_0000, 1 << 39)]);
    }

    #[test]
    fn more_regions_than_places_lose_memory_but_nothing_else() {
        let many = (0..100).map(|i| region(i * 0x10_000, i * 0x10_000 + 0x2000));
        assert_eq!(usable(many, &[], ALL).len(), MAX_REGIONS);
    }

    #[test]
    fn memory_is_taken_from_the_largest_region() {
        let mut free = [region(0x1000, 0x3000), region(0x10_000, 0x20_000)];
        assert_eq!(take(&mut free, 0x1001), Some(region(0x1e000, 0x20_000)));
        assert_eq!(free[1], region(0x10_000, 0x1e000));
        assert_eq!(take(&mut free, 0x10_0000), None);
        assert_eq!(take(&mut [], 1), None);
    }
}
