//! The memory functions that compiled code calls and no C library provides.
//!
//! Short copies are two overlapping loads and stores; long ones are `rep movsb`,
//! which current processors run at full width (ERMS, Intel optimization manual,
//! 3.7.6). Loops are in assembly, so that the compiler cannot turn one of them
//! into a call of the function it implements.

use core::arch::asm;
use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};

/// Copies `count` bytes that both fit twice in a `$type`, read before written,
/// so that overlapping ranges are fine.
macro_rules! copy_ends {
    ($type:ty, $to:ident, $from:ident, $count:ident) => {{
        let last = $count - size_of::<$type>();
        let first_part = $from.cast::<$type>().read_unaligned();
        let last_part = $from.add(last).cast::<$type>().read_unaligned();
        $to.cast::<$type>().write_unaligned(first_part);
        $to.add(last).cast::<$type>().write_unaligned(last_part);
    }};
}

/// Copies at most 64 bytes; the ranges may overlap.
///
/// # Safety
/// As for `memmove`, and `count` is at most 64.
#[inline(always)]
unsafe fn copy_short(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: each arm reads and writes only bytes below `count`, all of which
    // the caller vouches for.
    unsafe {
        match count {
            33.. => copy_64(to, from, count),
            17..=32 => {
                let last = count - 16;
                let low = _mm_loadu_si128(from.cast::<__m128i>());
                let high = _mm_loadu_si128(from.add(last).cast::<__m128i>());
                _mm_storeu_si128(to.cast::<__m128i>(), low);
                _mm_storeu_si128(to.add(last).cast::<__m128i>(), high);
            }
            8..=16 => copy_ends!(u64, to, from, count),
            4..=7 => copy_ends!(u32, to, from, count),
            2..=3 => copy_ends!(u16, to, from, count),
            1 => *to = *from,
            0 => {}
        }
    }
}

/// Copies 33 to 64 bytes; the ranges may overlap.
///
/// # Safety
/// As for `memmove`, and `count` is 33 to 64.
#[inline(always)]
unsafe fn copy_64(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: the four loads and stores are all below `count`.
    unsafe {
        let a = _mm_loadu_si128(from.cast::<__m128i>());
        let b = _mm_loadu_si128(from.add(16).cast::<__m128i>());
        let c = _mm_loadu_si128(from.add(count - 32).cast::<__m128i>());
        let d = _mm_loadu_si128(from.add(count - 16).cast::<__m128i>());
        _mm_storeu_si128(to.cast::<__m128i>(), a);
        _mm_storeu_si128(to.add(16).cast::<__m128i>(), b);
        _mm_storeu_si128(to.add(count - 32).cast::<__m128i>(), c);
        _mm_storeu_si128(to.add(count - 16).cast::<__m128i>(), d);
    }
}

/// C's `memcpy`.
///
/// # Safety
/// As in C: `count` bytes at `from` can be read and at `to` written, without overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if count <= 64 {
        // SAFETY: the caller's promise, and the bound just checked.
        unsafe { copy_short(to, from, count) };
        return to;
    }
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// C's `memmove`.
///
/// # Safety
/// As in C: `count` bytes at `from` can be read and at `to` written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if count <= 64 {
        // SAFETY: the caller's promise, and the bound just checked.
        unsafe { copy_short(to, from, count) };
        return to;
    }
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: `to` is not within the source, so a forward copy reads each
        // byte before it is written.
        unsafe {
            asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags));
        }
        return to;
    }
    // SAFETY: backwards from the last byte; the flag is cleared again, as the ABI
    // wants it.
    unsafe {
        asm!("std", "rep movsb", "cld",
            inout("rcx") count => _,
            inout("rdi") to.add(count - 1) => _,
            inout("rsi") from.add(count - 1) => _,
            options(nostack));
    }
    to
}

/// C's `memset`.
///
/// # Safety
/// As in C: `count` bytes at `to` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    to
}

/// C's `memcmp`.
///
/// # Safety
/// As in C: `count` bytes at `left` and at `right` can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    let mut at = 0;
    while at + 8 <= count {
        // SAFETY: eight bytes from `at` are below `count`.
        let (a, b) = unsafe {
            (
                left.add(at).cast::<u64>().read_unaligned(),
                right.add(at).cast::<u64>().read_unaligned(),
            )
        };
        if a != b {
            return if a.swap_bytes() < b.swap_bytes() {
                -1
            } else {
                1
            };
        }
        at += 8;
    }
    while at < count {
        // SAFETY: `at` is below `count`.
        let (a, b) = unsafe { (*left.add(at), *right.add(at)) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
        at += 1;
    }
    0
}

/// C's `bcmp`.
///
/// # Safety
/// As in C: `count` bytes at `left` and at `right` can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(left, right, count) }
}
