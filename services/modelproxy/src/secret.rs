//! A text that nobody is shown.

use std::fmt;
use std::sync::Arc;

/// A key. It can be used, not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes what stands in a variable, a file or a command's output: without white space around
    /// it. `None` when nothing is left, or it could not stand in a header.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_key = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        is_key.then(|| Self(text.into()))
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_printed() {
        let key = Secret::new(" sk-ant-1\n").unwrap();
        assert_eq!(key.expose(), "sk-ant-1");
        assert_eq!(format!("{key:?} {:?}", Some(&key)), "*** Some(***)");
        assert_eq!(Secret::new(" \n"), None);
        assert_eq!(Secret::new("two words"), None, "no header could carry it");
    }
}
