//! Keeps secret values out of error messages.

/// Shorter lines of a value of several lines are left alone: a key has long lines, and a document has lines such as `}`.
const SHORTEST_LINE: usize = 4;

/// What stands in the place of a secret value.
const STARS: &str = "***";

/// Values that no message may contain, the longest first.
#[derive(Default)]
pub(crate) struct Hidden(Vec<String>);

impl Hidden {
    /// These values, and the lines of those that have several: programs print texts line by line.
    pub(crate) fn new<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut hidden: Vec<String> = Vec::new();
        for value in values.map(str::trim).filter(|value| !value.is_empty()) {
            let lines = value.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE);
            hidden.extend(lines.chain([value]).map(str::to_owned));
        }
        hidden.sort_by_key(|value| std::cmp::Reverse(value.len()));
        hidden.dedup();
        Self(hidden)
    }

    /// The text without the values.
    pub(crate) fn remove_from(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, value| text.replace(value, STARS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_hidden_as_a_whole_and_line_by_line_also_if_it_is_part_of_another_one() {
        let hidden = Hidden::new(["pass", "password", "{\n  key: abcd\n}\n", "x", ""].into_iter());
        let said = hidden.remove_from("password and pass; { key: abcd }, x, {\n  key: abcd\n}");
        assert_eq!(said, "*** and ***; { *** }, ***, ***");
    }
}
