//! Chance, from a seed alone.
//!
//! Our own dozen lines rather than a library: a seed written down as a regression case
//! must mean the same run for as long as the case is kept.

/// A number for some bytes (FNV-1a).
pub fn hash(bytes: &[u8]) -> u64 {
    let mix = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

/// A stream of numbers (splitmix64). What draws from one stream does not disturb another.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of this name under a seed.
    pub fn stream(seed: u64, name: &str) -> Self {
        let mut stream = Self(seed ^ hash(name.as_bytes()));
        stream.draw();
        stream
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.draw() % n }
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// Whether something happens that does so `permille` times in a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1_000) < permille
    }

    /// Another stream, which this one's further use does not change.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    /// The same things in another order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for n in (1..things.len()).rev() {
            things.swap(n, self.below(n as u64 + 1) as usize);
        }
    }

    /// One of these; nothing if there are none.
    pub fn pick<'t, T>(&mut self, of: &'t [T]) -> Option<&'t T> {
        of.get(self.below(of.len() as u64) as usize)
    }

    /// A number around `mean` that is usually smaller and sometimes much larger.
    pub fn around(&mut self, mean: u64) -> u64 {
        let mut bound = mean.max(1);
        while self.chance(300) && bound < mean.saturating_mul(64) {
            bound = bound.saturating_mul(3);
        }
        self.between(1, bound)
    }
}
