//! The heap: all RAM that nothing else has. Tables and queues are made in it at
//! start and by table commits, never for a packet.

use nve_kernel::memory::Region;
use spin::Mutex;
use talc::TalcLock;
use talc::source::Manual;

#[global_allocator]
static HEAP: TalcLock<Mutex<()>, Manual> = TalcLock::new(Manual);

/// Gives `regions` to the heap.
///
/// # Safety
/// The regions are mapped RAM that nothing else uses, and do not overlap.
pub unsafe fn init(regions: &[Region]) {
    for region in regions {
        let Ok(length) = usize::try_from(region.len()) else {
            continue;
        };
        // A region too small for the allocator's bookkeeping stays unused.
        // SAFETY: the caller's promise.
        let _ = unsafe { HEAP.lock().claim(region.start as *mut u8, length) };
    }
}

/// Bytes of heap in use, and in all.
pub fn usage() -> (u64, u64) {
    let heap = HEAP.lock();
    let counters = heap.counters();
    (
        counters.allocated_bytes as u64,
        counters.claimed_bytes as u64,
    )
}
