//! A hash over what VMs send, with secrets that they do not know.

/// Secrets of one table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Secrets([u64; 6]);

impl Secrets {
    /// Derives them from a seed (splitmix64, Steele et al. 2014).
    pub(super) fn new(seed: u64) -> Secrets {
        let mut state = seed;
        Secrets([(); 6].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let a = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            b ^ (b >> 31)
        }))
    }

    /// Folded products of pairs of words, each with a secret in it (as in wyhash).
    pub(super) fn hash(&self, [a, b, c, d, e]: [u64; 5]) -> u64 {
        let [s, t, u, v, w, x] = self.0;
        let one = fold(a ^ s, b ^ t);
        let two = fold(c ^ u, d ^ v);
        fold(one ^ two.rotate_left(32) ^ w, e ^ x)
    }
}

fn fold(x: u64, y: u64) -> u64 {
    let product = u128::from(x) * u128::from(y);
    (product as u64) ^ ((product >> 64) as u64)
}
