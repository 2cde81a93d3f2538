//! What a record is made of, encoded: events, or submissions.

use crate::event::Event;

/// Encoded events or submissions, one after the other in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elements {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Elements {
    /// Adds an event.
    pub fn push_event(&mut self, event: &Event) {
        event.encode_into(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// These events.
    pub fn of_events(events: &[Event]) -> Self {
        let mut elements = Self::default();
        for event in events {
            elements.push_event(event);
        }
        elements
    }

    /// Adds an element that is encoded already.
    pub fn push(&mut self, element: &[u8]) {
        self.bytes.extend_from_slice(element);
        self.ends.push(self.bytes.len());
    }

    /// Adds all of `more`.
    pub fn append(&mut self, more: Self) {
        if self.ends.is_empty() {
            *self = more;
            return;
        }
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&more.bytes);
        self.ends.extend(more.ends.iter().map(|end| before + end));
    }

    /// Each, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges = begins.zip(&self.ends);
        ranges.filter_map(|(begin, end)| self.bytes.get(begin..*end))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All of them, one after the other.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the first ones, as many as are no more than `len_max` and have no more than
    /// `bytes_max` bytes, but at least one.
    #[must_use]
    pub fn take_front(&mut self, len_max: usize, bytes_max: usize) -> Self {
        let fit = self.ends.partition_point(|end| *end <= bytes_max);
        let len = fit.min(len_max).max(1);
        if len >= self.ends.len() {
            return std::mem::take(self);
        }
        let end = self.ends.get(len - 1).copied().unwrap_or_default();
        let bytes = self.bytes.split_off(end);
        let rest = self.ends.split_off(len);
        let rest = Self {
            bytes,
            ends: rest.into_iter().map(|at| at - end).collect(),
        };
        std::mem::replace(self, rest)
    }
}

impl From<&Event> for Elements {
    fn from(event: &Event) -> Self {
        Self::of_events(std::slice::from_ref(event))
    }
}

impl<E: AsRef<[u8]>> FromIterator<E> for Elements {
    fn from_iter<I: IntoIterator<Item = E>>(all: I) -> Self {
        let mut elements = Self::default();
        for element in all {
            elements.push(element.as_ref());
        }
        elements
    }
}

impl<E: AsRef<[u8]>, const N: usize> From<&[E; N]> for Elements {
    fn from(all: &[E; N]) -> Self {
        all.iter().collect()
    }
}

impl<E: AsRef<[u8]>> From<&[E]> for Elements {
    fn from(all: &[E]) -> Self {
        all.iter().collect()
    }
}

impl<E: AsRef<[u8]>> From<&Vec<E>> for Elements {
    fn from(all: &Vec<E>) -> Self {
        all.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_taken_and_the_rest_stays() {
        let mut all = Elements::from(&["a", "bb", "ccc", "dddd"]);
        let mut more = Elements::from(&["e"]);
        more.append(Elements::from(&["ff"]));
        all.append(more);
        assert_eq!(all.take_front(9, 3), Elements::from(&["a", "bb"]));
        assert_eq!(all.take_front(1, 100), Elements::from(&["ccc"]));
        assert_eq!(
            all.take_front(9, 1),
            Elements::from(&["dddd"]),
            "one at least"
        );
        assert_eq!(all.take_front(9, 100), Elements::from(&["e", "ff"]));
        assert!(all.is_empty() && all.as_bytes().is_empty());
    }
}
