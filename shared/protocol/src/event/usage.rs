//! Arithmetic of usage. What an attempt reports is what its task has used so far.

use super::Usage;

impl Usage {
    /// What came after `earlier`, which the scheduler told the attempt or which it reported before;
    /// nothing where a figure is smaller than it was.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            turns: self.turns.saturating_sub(earlier.turns),
            input_tokens: self.input_tokens.saturating_sub(earlier.input_tokens),
            cached_tokens: self.cached_tokens.saturating_sub(earlier.cached_tokens),
            cache_write_tokens: self
                .cache_write_tokens
                .saturating_sub(earlier.cache_write_tokens),
            output_tokens: self.output_tokens.saturating_sub(earlier.output_tokens),
            cost_usd: (self.cost_usd - earlier.cost_usd).max(0.0),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_what_is_more() {
        let earlier = Usage {
            turns: 2,
            output_tokens: 10,
            cost_usd: 0.5,
            session: Some("a".into()),
            ..Usage::default()
        };
        let now = Usage {
            turns: 5,
            output_tokens: 9,
            cost_usd: 0.75,
            session: Some("b".into()),
            ..Usage::default()
        };
        let came = now.since(&earlier);
        assert_eq!((came.turns, came.output_tokens), (3, 0));
        assert!((came.cost_usd - 0.25).abs() < 1e-9);
        assert_eq!(came.session.as_deref(), Some("b"));
    }
}
