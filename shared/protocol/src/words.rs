//! Enums whose values are words on the wire.

/// Enums, each value with its word: the word stands beside it once, and whatever reads, writes or
/// lists values has it from there.
macro_rules! words {
    ($(
        $(#[$doc:meta])*
        $name:ident($what:literal) {
            $($(#[$value_doc:meta])* $value:ident = $word:literal,)*
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug,
            serde::Serialize, serde::Deserialize,
        )]
        pub enum $name {
            $($(#[$value_doc])* #[serde(rename = $word)] $value,)*
        }

        impl $name {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$value),*];

            /// The wire name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                let named = |value: &&Self| value.as_str() == s;
                Self::ALL.iter().find(named).copied().ok_or_else(|| {
                    let words: Vec<&str> = Self::ALL.iter().map(|value| value.as_str()).collect();
                    format!("{s:?} is no {}; one of {}", $what, words.join(", "))
                })
            }
        }
    )*};
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    use crate::terms::{Guarantee, Level};

    #[test]
    fn a_word_is_the_same_wherever_it_is_read_or_written() {
        for value in Guarantee::ALL {
            let word = value.as_str();
            assert_eq!(value.to_string(), word);
            assert_eq!(word.parse(), Ok(*value));
            assert_eq!(serde_json::to_value(value).unwrap(), word);
            assert_eq!(
                serde_json::from_value::<Guarantee>(word.into()).unwrap(),
                *value
            );
        }
        assert_eq!(Guarantee::NothingLeft.as_str(), "nothing_left");
        assert_eq!(
            Level::ALL,
            [Level::Minimal, Level::Moderate, Level::Strict],
            "in order"
        );
        assert_eq!(
            "high".parse::<Level>().unwrap_err(),
            "\"high\" is no level; one of minimal, moderate, strict"
        );
    }
}
