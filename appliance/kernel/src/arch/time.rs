//! Time since boot, from the time-stamp counter.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};

use nve_datapath::Nanos;
use nve_kernel::tsc::{Scale, from_crystal, from_kvm_clock, from_pit, undisturbed};
use spin::Once;
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

use super::cpu;

/// A way to the counter's rate in Hz.
type Source = fn() -> Option<u64>;

static START: AtomicU64 = AtomicU64::new(0);
static SCALE: Once<Scale> = Once::new();

/// The counter.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: every 64-bit processor has RDTSC, and it has no effect.
    unsafe { _rdtsc() }
}

/// Time since the first instruction of the image; 0 before [`init`].
#[inline]
pub fn since_boot() -> Nanos {
    let ticks = ticks().wrapping_sub(START.load(Ordering::Relaxed));
    Nanos(SCALE.get().map_or(0, |scale| scale.nanos(ticks)))
}

/// The counter's value at `time`.
pub fn ticks_at(time: Nanos) -> u64 {
    START.load(Ordering::Relaxed).wrapping_add(ticks_in(time.0))
}

/// What the counter makes in `nanos`; 0 before [`init`].
pub fn ticks_in(nanos: u64) -> u64 {
    SCALE.get().map_or(0, |scale| scale.ticks(nanos))
}

/// Finds the counter's rate, given its value at the first instruction. Returns
/// where the rate is from and what it is in Hz.
pub fn init(start: u64) -> Option<(&'static str, u64)> {
    START.store(start, Ordering::Relaxed);
    let sources: [(&str, Source); 4] = [
        ("CPUID 0x15", crystal),
        ("CPUID 0x40000010", hypervisor),
        ("kvm-clock", kvm_clock),
        ("PIT", pit),
    ];
    sources.into_iter().find_map(|(name, source)| {
        let scale = Scale::new(source()?)?;
        SCALE.call_once(|| scale);
        Some((name, scale.hertz()))
    })
}

fn crystal() -> Option<u64> {
    let leaf = cpu::leaf(0x15);
    from_crystal(leaf.eax, leaf.ebx, leaf.ecx)
}

/// The rate in kHz that VMware defined and others adopted.
fn hypervisor() -> Option<u64> {
    if !cpu::has_hypervisor() {
        return None;
    }
    match cpu::leaf(0x4000_0010).eax {
        0 => None,
        kilohertz => Some(u64::from(kilohertz) * 1000),
    }
}

/// `pvclock_vcpu_time_info` (Linux, Documentation/virt/kvm/x86/msr.rst).
#[repr(C, align(64))]
struct PvClock {
    words: [AtomicU64; 4],
}

static PV_CLOCK: PvClock = PvClock {
    words: [const { AtomicU64::new(0) }; 4],
};

fn kvm_clock() -> Option<u64> {
    /// Feature bit of the MSR below.
    const CLOCKSOURCE2: u32 = 1 << 3;
    const MSR_KVM_SYSTEM_TIME_NEW: u32 = 0x4b56_4d01;

    let signature = cpu::leaf(0x4000_0000);
    let is_kvm = cpu::has_hypervisor()
        && [signature.ebx, signature.ecx, signature.edx]
            == [
                u32::from_le_bytes(*b"KVMK"),
                u32::from_le_bytes(*b"VMKV"),
                u32::from_le_bytes(*b"M\0\0\0"),
            ];
    if !is_kvm || cpu::leaf(0x4000_0001).eax & CLOCKSOURCE2 == 0 {
        return None;
    }
    let mut clock = Msr::new(MSR_KVM_SYSTEM_TIME_NEW);
    let address = (&raw const PV_CLOCK) as u64;
    // SAFETY: KVM announced the MSR; it fills the structure, which is static,
    // while bit 0 is set, and forgets it when it is cleared.
    unsafe {
        clock.write(address | 1);
        clock.write(0);
    }
    let word = PV_CLOCK.words[3].load(Ordering::Acquire);
    let [m0, m1, m2, m3, shift, ..] = word.to_le_bytes();
    from_kvm_clock(u32::from_le_bytes([m0, m1, m2, m3]), shift.cast_signed())
}

/// Times the counter against the PIT, which takes 3 ms or a few times that.
fn pit() -> Option<u64> {
    /// More than two are needed only on a host that is overloaded.
    const ROUNDS: usize = 16;

    undisturbed((0..ROUNDS).map_while(|_| pit_round())).and_then(|ticks| from_pit(ticks, PIT_COUNT))
}

/// 3 ms in ticks of the PIT: a poll of its output takes about a microsecond, so the rate
/// is known to 0.05 %, and the first frame does not wait for more.
const PIT_COUNT: u16 = 3_580;

/// Ticks of the counter while channel 2 of the PIT (Intel 8254), whose gate and
/// output are at port 0x61, makes [`PIT_COUNT`]. Both are read outside of the gate,
/// so that a processor that has to wait can only count too many.
fn pit_round() -> Option<u64> {
    const GATE: u8 = 1;
    const SPEAKER: u8 = 2;
    const OUTPUT: u8 = 1 << 5;
    /// Polls of the output before the PIT counts as absent.
    const PATIENCE: u32 = 10_000_000;

    let mut gate = Port::<u8>::new(0x61);
    let [low, high] = PIT_COUNT.to_le_bytes();
    // SAFETY: the PIT's registers; the speaker stays off.
    let started = unsafe {
        let idle = gate.read() & !(GATE | SPEAKER);
        gate.write(idle);
        Port::<u8>::new(0x43).write(0xb0); // channel 2, both bytes, one-shot
        Port::<u8>::new(0x42).write(low);
        Port::<u8>::new(0x42).write(high);
        let started = ticks();
        gate.write(idle | GATE);
        started
    };
    for _ in 0..PATIENCE {
        // SAFETY: reading the port has no effect.
        if unsafe { gate.read() } & OUTPUT != 0 {
            return Some(ticks().wrapping_sub(started));
        }
    }
    None
}
