//! The heap in large pages, as the image has it.
//!
//! Tables of millions of flows are read at random: with pages of 4 KiB, the processor
//! would look up most addresses in memory before the flows themselves.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};

use crate::memory::HUGE;

/// The system's allocator, which asks for large pages for what fills some. Where the
/// system has none to spare, pages are small.
#[derive(Debug, Clone, Copy, Default)]
pub struct LargePages;

/// Where it begins, so that whole pages fit; `None` for what fills none.
fn large(layout: Layout) -> Option<Layout> {
    let large = layout.align_to(HUGE).ok()?;
    (layout.size() >= HUGE).then_some(large)
}

/// Asks for large pages for memory that was allocated just now.
fn advise(memory: *mut u8, layout: Layout) -> *mut u8 {
    if let Some(first) = NonNull::new(memory) {
        // SAFETY: the range was allocated just now. It is only advice.
        let _ = unsafe { madvise(first.cast(), layout.size(), MmapAdvise::MADV_HUGEPAGE) };
    }
    memory
}

// SAFETY: all memory is the system allocator's; a layout leads to the same one of it each
// time. Advice changes nothing of what is in the memory.
unsafe impl GlobalAlloc for LargePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(large) = large(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        };
        // SAFETY: the caller's promise; no smaller than what was asked for.
        advise(unsafe { System.alloc(large) }, large)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; it was allocated with that layout.
        unsafe { System.dealloc(memory, large(layout).unwrap_or(layout)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fills_a_page_begins_on_one_and_keeps_its_bytes() {
        for size in [1, HUGE - 1, HUGE, 3 * HUGE + 5] {
            let layout = Layout::from_size_align(size, 64).unwrap();
            // SAFETY: the size is not 0.
            let memory = unsafe { LargePages.alloc_zeroed(layout) };
            assert!(!memory.is_null());
            assert_eq!(memory.addr() % 64, 0);
            if size >= HUGE {
                assert_eq!(memory.addr() % HUGE, 0);
            }
            // SAFETY: inside of what was allocated, to which nobody else has a pointer.
            unsafe {
                memory.add(size - 1).write(7);
                let grown = LargePages.realloc(memory, layout, size + HUGE);
                assert_eq!(grown.add(size - 1).read(), 7);
                let layout = Layout::from_size_align(size + HUGE, 64).unwrap();
                LargePages.dealloc(grown, layout);
            }
        }
    }
}
