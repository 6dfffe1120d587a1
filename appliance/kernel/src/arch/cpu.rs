//! What the processor can do, and its random numbers.

use core::arch::x86_64::{__cpuid_count, _rdrand64_step, _rdseed64_step, CpuidResult};

use heapless::String;
use nve_kernel::acpi::ApicId;

/// CPUID leaf `leaf`, subleaf `sub`.
pub fn cpuid(leaf: u32, sub: u32) -> CpuidResult {
    __cpuid_count(leaf, sub)
}

/// CPUID leaf `leaf`, or zeros if the processor has no such leaf.
pub fn leaf(leaf: u32) -> CpuidResult {
    let base = leaf & 0xffff_0000;
    if cpuid(base, 0).eax < leaf {
        return CpuidResult {
            eax: 0,
            ebx: 0,
            ecx: 0,
            edx: 0,
        };
    }
    cpuid(leaf, 0)
}

/// Identifier of this processor's APIC, as it was given at reset.
pub fn apic_id() -> ApicId {
    ApicId((leaf(1).ebx >> 24) as u8)
}

/// Whether a hypervisor answers CPUID leaves from 0x4000_0000.
pub fn has_hypervisor() -> bool {
    leaf(1).ecx & 1 << 31 != 0
}

/// Whether this is a processor that the image was compiled for: x86-64-v2.
pub fn is_supported() -> bool {
    // SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT (x86-64 psABI, table 3.1).
    const NEEDED: u32 = 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23;
    leaf(1).ecx & NEEDED == NEEDED
}

/// The processor's own name for itself.
pub fn brand() -> String<48> {
    let mut text = heapless::Vec::<u8, 48>::new();
    for number in 0x8000_0002..=0x8000_0004 {
        let CpuidResult { eax, ebx, ecx, edx } = leaf(number);
        for word in [eax, ebx, ecx, edx] {
            // 3 leaves of 16 bytes are what the text has room for.
            let _ = text.extend_from_slice(&word.to_le_bytes());
        }
    }
    text.retain(|byte| (0x20..0x7f).contains(byte));
    String::from_utf8(text).unwrap_or_default()
}

/// The processor's random number generator.
#[derive(Debug, Clone, Copy)]
pub enum Entropy {
    /// RDSEED, straight from the source.
    Seed,
    /// RDRAND, a generator seeded from it.
    Random,
}

impl Entropy {
    /// Attempts before a generator counts as broken (Intel DRNG guide, 5.2.1).
    const RETRIES: usize = 10_000;

    /// The best generator that the processor has and that works.
    pub fn find() -> Option<Entropy> {
        let candidates = [
            (leaf(7).ebx & 1 << 18 != 0, Entropy::Seed),
            (leaf(1).ecx & 1 << 30 != 0, Entropy::Random),
        ];
        candidates
            .into_iter()
            .find_map(|(present, source)| (present && source.works()).then_some(source))
    }

    /// Fills `bytes`; false if the generator gave up.
    #[must_use]
    pub fn fill(self, bytes: &mut [u8]) -> bool {
        for chunk in bytes.chunks_mut(8) {
            let Some(word) = self.word() else {
                return false;
            };
            for (byte, random) in chunk.iter_mut().zip(word.to_le_bytes()) {
                *byte = random;
            }
        }
        true
    }

    /// A generator that repeats itself is broken (AMD erratum 1211 gave ones).
    fn works(self) -> bool {
        matches!((self.word(), self.word()), (Some(a), Some(b)) if a != b)
    }

    fn word(self) -> Option<u64> {
        (0..Self::RETRIES).find_map(|_| {
            let mut word = 0;
            // SAFETY: `find` saw the instruction in CPUID.
            let filled = unsafe {
                match self {
                    Entropy::Seed => seed(&mut word),
                    Entropy::Random => random(&mut word),
                }
            };
            (filled == 1).then_some(word)
        })
    }
}

#[target_feature(enable = "rdseed")]
fn seed(word: &mut u64) -> i32 {
    _rdseed64_step(word)
}

#[target_feature(enable = "rdrand")]
fn random(word: &mut u64) -> i32 {
    _rdrand64_step(word)
}
