//! What models cost. Data, not code: [`BUILT_IN`], and a file of the operator's before it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::meter::Tokens;
use crate::policy::is_version_of;

/// The list that comes with this version.
const BUILT_IN: &str = include_str!("../prices.toml");

/// US dollars for a million tokens.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    input: f64,
    cached: f64,
    cache_write: Option<f64>,
    cache_write_hour: Option<f64>,
    output: f64,
}

impl Price {
    fn of(&self, tokens: &Tokens) -> f64 {
        let write = self.cache_write.unwrap_or(self.input);
        let write_hour = self.cache_write_hour.unwrap_or(write);
        let sum = tokens.input as f64 * self.input
            + tokens.cached as f64 * self.cached
            + tokens.cache_write as f64 * write
            + tokens.cache_write_hour as f64 * write_hour
            + tokens.output as f64 * self.output;
        sum / 1e6
    }

    fn is_money(&self) -> bool {
        let optional = [self.cache_write, self.cache_write_hour]
            .into_iter()
            .flatten();
        let mut all = [self.input, self.cached, self.output]
            .into_iter()
            .chain(optional);
        all.all(|usd| usd.is_finite() && usd >= 0.0)
    }
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    names: Vec<String>,
    price: Price,
    #[serde(default)]
    above: Option<u64>,
    #[serde(default)]
    long: Option<Price>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    as_of: String,
    #[serde(default)]
    model: Vec<Entry>,
}

/// What models cost, as far as it is known.
#[derive(Clone, Debug)]
pub struct Prices {
    /// When the newest of the lists was right.
    pub as_of: String,
    /// By name; longer ones are asked first, since they say more.
    entries: BTreeMap<(std::cmp::Reverse<usize>, String), Entry>,
}

impl Prices {
    /// The list that comes with this version, with an operator's before it.
    pub fn new(own: Option<&str>) -> Result<Self, String> {
        let mut prices = Self {
            as_of: String::new(),
            entries: BTreeMap::new(),
        };
        prices.add(BUILT_IN)?;
        if let Some(own) = own {
            prices.add(own)?;
        }
        Ok(prices)
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let list: List = toml::from_str(text).map_err(|e| e.to_string())?;
        for entry in list.model {
            let prices = [Some(&entry.price), entry.long.as_ref()];
            if !prices.into_iter().flatten().all(Price::is_money) {
                return Err(format!(
                    "the price of {:?} is no amount of money",
                    entry.names
                ));
            }
            if entry.above.is_some() != entry.long.is_some() {
                return Err(format!(
                    "{:?} needs both `above` and `long`, or none",
                    entry.names
                ));
            }
            for name in &entry.names {
                let key = (std::cmp::Reverse(name.len()), name.clone());
                self.entries.insert(key, entry.clone());
            }
        }
        self.as_of = list.as_of;
        Ok(())
    }

    fn entry(&self, model: &str) -> Option<&Entry> {
        let mut entries = self.entries.iter();
        let found = entries.find(|((_, name), _)| is_version_of(model, name));
        found.map(|(_, entry)| entry)
    }

    /// Whether the price of a model is known.
    pub fn knows(&self, model: &str) -> bool {
        self.entry(model).is_some()
    }

    /// What tokens of a model cost; `None` where that is not known.
    pub fn cost(&self, model: &str, tokens: &Tokens) -> Option<f64> {
        let entry = self.entry(model)?;
        let prompt = tokens.input + tokens.cached + tokens.cache_write + tokens.cache_write_hour;
        let long = entry
            .long
            .filter(|_| entry.above.is_some_and(|above| prompt > above));
        Some(long.unwrap_or(entry.price).of(tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLION_EACH: Tokens = Tokens {
        input: 1_000_000,
        cached: 1_000_000,
        cache_write: 1_000_000,
        cache_write_hour: 1_000_000,
        output: 1_000_000,
    };

    fn cost(prices: &Prices, model: &str, tokens: &Tokens) -> String {
        let cost = prices.cost(model, tokens);
        cost.map_or("unknown".to_owned(), |usd| format!("{usd:.4}"))
    }

    #[test]
    fn every_kind_of_token_has_its_price() {
        let prices = Prices::new(None).unwrap();
        assert_eq!(
            cost(&prices, "claude-sonnet-4-5-20250929", &MILLION_EACH),
            "28.0500"
        );
        assert_eq!(cost(&prices, "gpt-5.1-codex", &MILLION_EACH), "13.8750");
        let few = Tokens {
            input: 1500,
            cached: 8000,
            cache_write: 200,
            output: 42,
            ..Tokens::default()
        };
        assert_eq!(cost(&prices, "claude-opus-4-1", &few), "0.0414");
    }

    #[test]
    fn a_model_that_is_not_in_the_list_has_no_price() {
        let prices = Prices::new(None).unwrap();
        for model in [
            "claude-opus-9",
            "gpt-5-pro",
            "gpt-5.1-codex-max-2",
            "",
            "claude",
        ] {
            assert!(!prices.knows(model), "{model}");
        }
        for model in [
            "claude-opus-4-20250514",
            "claude-opus-4-5@20251101",
            "gpt-5-2025-08-07",
            "claude-sonnet-5-5[1m]",
        ] {
            assert!(prices.knows(model), "{model}");
        }
    }

    #[test]
    fn long_prompts_may_cost_more() {
        let prices = Prices::new(None).unwrap();
        let prompt = |input, cached| Tokens {
            input,
            cached,
            ..Tokens::default()
        };
        assert_eq!(
            cost(&prices, "claude-haiku-5-5", &prompt(100_000, 0)),
            "0.0100"
        );
        assert_eq!(
            cost(&prices, "claude-haiku-5-5", &prompt(100_000, 100_000)),
            "0.0550"
        );
    }

    #[test]
    fn an_operator_has_the_last_word() {
        let own = "as_of = \"2027-01-01\"\n[[model]]\nnames = [\"claude-opus-4-5\", \"mine\"]\nprice = { input = 1, cached = 0, output = 2 }\n";
        let prices = Prices::new(Some(own)).unwrap();
        assert_eq!(prices.as_of, "2027-01-01");
        assert_eq!(
            cost(&prices, "claude-opus-4-5-20251101", &MILLION_EACH),
            "5.0000"
        );
        assert_eq!(cost(&prices, "mine", &MILLION_EACH), "5.0000");
        assert_eq!(
            cost(
                &prices,
                "claude-opus-4-1",
                &Tokens {
                    output: 1_000_000,
                    ..Tokens::default()
                }
            ),
            "75.0000"
        );
    }

    #[test]
    fn a_list_that_makes_no_sense_is_refused() {
        for own in [
            "as_of = \"x\"\n[[model]]\nnames = [\"m\"]\nprice = { input = -1, cached = 0, output = 2 }\n",
            "as_of = \"x\"\n[[model]]\nnames = [\"m\"]\nabove = 5\nprice = { input = 1, cached = 0, output = 2 }\n",
            "as_of = \"x\"\n[[model]]\nnames = [\"m\"]\nprice = { input = 1, cached = 0, ouput = 2 }\n",
            "[[model]]\n",
        ] {
            assert!(Prices::new(Some(own)).is_err(), "{own}");
        }
    }
}
