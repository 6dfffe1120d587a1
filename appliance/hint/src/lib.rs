//! Hints to the processor, which change nothing but how long things take.
//!
//! A crate of its own, so that those who need nothing else of the machine can do
//! without unsafe code.
#![no_std]

/// Bytes of a cache line.
pub const LINE: usize = 64;

/// Has the processor fetch the cache line that `place` begins in, to be read soon.
#[inline(always)]
pub fn prefetch<T: ?Sized>(place: &T) {
    prefetch_at(core::ptr::from_ref(place).cast());
}

/// The same for the cache line at an address, which need not be one of anything.
#[inline(always)]
pub fn prefetch_at(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch of any address does nothing but
    // fetch.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
}

/// Has the processor fetch the cache line at an address, which need not be one of
/// anything, to be written soon. What another processor has written is fetched once
/// then, and not a second time when it is changed.
#[inline(always)]
pub fn prefetch_write_at(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address does nothing but fetch; x86-64 processors that
    // do not have this one take it for no operation.
    unsafe {
        core::arch::asm!(
            "prefetchw byte ptr [{address}]",
            address = in(reg) address,
            options(nostack, preserves_flags, readonly)
        );
    }
}
