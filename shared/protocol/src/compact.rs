//! Values as the state keeps them by the million: small, and cheap to hand on.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::msgpack::Reader;

/// Bytes of the texts that are usual.
const TEXTS_CAPACITY: usize = 256;

/// Names with values, such as labels and metadata: sorted by name, each name once, in one
/// piece of memory. Written as a map. Clones share it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Pairs(Option<Arc<[u8]>>);

impl Pairs {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Names and values in the order of the names.
    pub fn iter(&self) -> PairsIter<'_> {
        PairsIter(self.0.as_deref().unwrap_or_default())
    }

    /// Reads a map of texts; `None` for anything else.
    pub(crate) fn read(r: &mut Reader<'_>) -> Option<Self> {
        let mut texts = Texts::default();
        for _ in 0..r.map()? {
            texts.put_name(r.str()?);
            texts.put(r.str()?);
        }
        Some(texts.pairs())
    }
}

/// Names and values in turn, as [`Pairs`] keep them, while they are gathered.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
    /// Where the last name stands.
    last_name: Option<usize>,
    is_unsorted: bool,
}

impl Texts {
    fn put_name(&mut self, name: &str) {
        if self.bytes.is_empty() {
            self.bytes.reserve(TEXTS_CAPACITY);
        }
        let last = self.last_name.and_then(|at| self.bytes.get(at..));
        let last = last.and_then(|texts| PairsIter(texts).text());
        self.is_unsorted |= last.is_some_and(|last| last >= name);
        self.last_name = Some(self.bytes.len());
        self.put(name);
    }

    fn put(&mut self, text: &str) {
        self.bytes
            .extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn pairs(&self) -> Pairs {
        if self.is_unsorted {
            // The last of equal names counts, as in any map.
            let sorted: BTreeMap<&str, &str> = PairsIter(&self.bytes).collect();
            return sorted.into_iter().collect();
        }
        let is_empty = self.bytes.is_empty();
        Pairs((!is_empty).then(|| self.bytes.as_slice().into()))
    }
}

impl<'p> IntoIterator for &'p Pairs {
    type Item = (&'p str, &'p str);
    type IntoIter = PairsIter<'p>;
    fn into_iter(self) -> PairsIter<'p> {
        self.iter()
    }
}

/// Names and values of [`Pairs`].
#[derive(Clone, Debug)]
pub struct PairsIter<'p>(&'p [u8]);

impl<'p> PairsIter<'p> {
    fn text(&mut self) -> Option<&'p str> {
        let (len, rest) = self.0.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let (text, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

impl<'p> Iterator for PairsIter<'p> {
    type Item = (&'p str, &'p str);
    fn next(&mut self) -> Option<Self::Item> {
        Some((self.text()?, self.text()?))
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut texts = Texts::default();
        for (name, value) in pairs {
            texts.put_name(name.as_ref());
            texts.put(value.as_ref());
        }
        texts.pairs()
    }
}

impl<K: AsRef<str>, V: AsRef<str>, const N: usize> From<[(K, V); N]> for Pairs {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.len()))?;
        for (name, value) in self {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Reads a name and adds it.
struct Name<'t>(&'t mut Texts);
/// Reads a value and adds it.
struct Value<'t>(&'t mut Texts);

macro_rules! reads_a_text {
    ($($seed:ident by $put:ident),*) => {$(
        impl<'de> DeserializeSeed<'de> for $seed<'_> {
            type Value = ();
            fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
                d.deserialize_str(self)
            }
        }

        impl Visitor<'_> for $seed<'_> {
            type Value = ();
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
                self.0.$put(text);
                Ok(())
            }
        }
    )*};
}

reads_a_text!(Name by put_name, Value by put);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut texts = Texts::default();
                while map.next_key_seed(Name(&mut texts))?.is_some() {
                    map.next_value_seed(Value(&mut texts))?;
                }
                Ok(texts.pairs())
            }
        }
        d.deserialize_map(V)
    }
}

/// A type with one value that nearly everything has.
pub trait Usual: Default + PartialEq + 'static {
    /// That value, the default, to be borrowed for ever.
    fn usual() -> &'static Self;
}

/// A value that is nearly always the usual one, and takes no more than a word then.
pub struct Rare<T>(Option<Box<T>>);

impl<T: Usual> Rare<T> {
    /// Whether it is the usual one.
    pub fn is_usual(&self) -> bool {
        self.0.as_deref().is_none_or(|value| value == T::usual())
    }
}

impl<T: Usual> From<T> for Rare<T> {
    fn from(value: T) -> Self {
        Self((value != *T::usual()).then(|| Box::new(value)))
    }
}

impl<T: Usual> Deref for Rare<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or_else(|| T::usual())
    }
}

impl<T: Usual> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_with(Box::default)
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Clone for Rare<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Usual> PartialEq for Rare<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Usual + Eq> Eq for Rare<T> {}

impl<T: Usual + fmt::Debug> fmt::Debug for Rare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: Usual + Serialize> Serialize for Rare<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        T::serialize(self, s)
    }
}

impl<'de, T: Usual + Deserialize<'de>> Deserialize<'de> for Rare<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        T::deserialize(d).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Timeouts;

    #[test]
    fn pairs_are_a_map() {
        let pairs = Pairs::from([("b", "1"), ("a", "2"), ("b", "3")]);
        let map = BTreeMap::from([("a", "2"), ("b", "3")]);
        assert_eq!(pairs.iter().collect::<BTreeMap<_, _>>(), map);
        assert_eq!(pairs.len(), 2);
        let bytes = rmp_serde::to_vec_named(&pairs).unwrap();
        assert_eq!(bytes, rmp_serde::to_vec_named(&map).unwrap());
        assert_eq!(rmp_serde::from_slice::<Pairs>(&bytes).unwrap(), pairs);
        let empty: Pairs = serde_json::from_str("{}").unwrap();
        assert!(empty.is_empty() && empty == Pairs::default());
        let twice: Pairs = serde_json::from_str(r#"{"a":"1","a":"2"}"#).unwrap();
        assert_eq!(twice, Pairs::from([("a", "2")]));
        assert!(serde_json::from_str::<Pairs>(r#"{"a":1}"#).is_err());
        let escaped: Pairs = serde_json::from_str(r#"{"a\n":"\u00e4"}"#).unwrap();
        assert_eq!(escaped, Pairs::from([("a\n", "ä")]));
    }

    #[test]
    fn what_is_usual_takes_a_word() {
        let usual = Rare::from(Timeouts::default());
        assert!(usual.0.is_none() && usual.is_usual());
        let mut touched = usual.clone();
        touched.run = None;
        assert!(touched.0.is_some() && touched.is_usual() && touched == usual);
        touched.run = Some(crate::human::DurationMs(1));
        assert!(!touched.is_usual() && touched != usual);
        assert_eq!(size_of::<Rare<Timeouts>>(), size_of::<usize>());
    }
}
