//! HAProxy's two kinds of tables, read by the names of their columns: versions of HAProxy add columns, and put them elsewhere.

use std::{borrow::Cow, str::FromStr};

use crate::error::Problem;

/// The columns of a table.
pub(crate) struct Columns<'a> {
    what: &'static str,
    names: Vec<&'a str>,
}

/// The place of a column in each row.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    index: usize,
    name: &'static str,
}

impl<'a> Columns<'a> {
    /// From the line that names the columns, which begins with `# `.
    pub(crate) fn new(what: &'static str, line: &'a str, separator: char) -> Result<Self, Problem> {
        let names = line.strip_prefix("# ").ok_or_else(|| Problem::garbled(what, line))?;
        Ok(Self { what, names: names.trim_end().split(separator).collect() })
    }

    /// How many columns there are.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// The column of this name, which must exist.
    pub(crate) fn column(&self, name: &'static str) -> Result<Column, Problem> {
        match self.names.iter().position(|found| *found == name) {
            Some(index) => Ok(Column { index, name }),
            None => Err(Problem::garbled(format!("{} with a column `{name}`", self.what), &self.names.join(" "))),
        }
    }
}

impl Column {
    /// The cell of this column, as text.
    pub(crate) fn text<S: AsRef<str>>(self, row: &[S]) -> Result<&str, Problem> {
        let cell = row.get(self.index).map(AsRef::as_ref);
        cell.ok_or_else(|| Problem::garbled(format!("a row with a value for `{}`", self.name), &shown(row)))
    }

    /// The cell of this column, as a number.
    pub(crate) fn number<N: FromStr, S: AsRef<str>>(self, row: &[S]) -> Result<N, Problem> {
        let cell = self.text(row)?;
        cell.parse().map_err(|_| Problem::garbled(format!("a row with a number for `{}`", self.name), &shown(row)))
    }
}

fn shown<S: AsRef<str>>(row: &[S]) -> String {
    row.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ")
}

/// The rows of comma-separated values. A cell in quotes may hold commas, newlines, and quotes written twice.
pub(crate) struct CsvRows<'a> {
    rest: &'a str,
}

/// Reads the rows of `text`; empty lines are left out.
pub(crate) fn csv_rows(text: &str) -> CsvRows<'_> {
    CsvRows { rest: text }
}

impl<'a> Iterator for CsvRows<'a> {
    type Item = Result<Vec<Cow<'a, str>>, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = self.rest.trim_start_matches('\n');
        if self.rest.is_empty() {
            return None;
        }
        let row = csv_row(self.rest);
        self.rest = row.as_ref().map_or("", |(_, behind)| behind);
        Some(row.map(|(cells, _)| cells))
    }
}

/// One row, and what stands behind it.
fn csv_row(mut text: &str) -> Result<(Vec<Cow<'_, str>>, &str), Problem> {
    let mut cells = Vec::new();
    loop {
        let (cell, behind) = csv_cell(text)?;
        cells.push(cell);
        match behind.strip_prefix(',') {
            Some(next) => text = next,
            None => return Ok((cells, behind)),
        }
    }
}

/// One cell, and what stands behind it: nothing, a comma or a newline.
fn csv_cell(text: &str) -> Result<(Cow<'_, str>, &str), Problem> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let (cell, behind) = text.split_at(text.find([',', '\n']).unwrap_or(text.len()));
        return Ok((Cow::Borrowed(cell), behind));
    };
    let mut cell = String::new();
    loop {
        let (part, behind) = rest.split_once('"').ok_or_else(|| Problem::garbled("values with closed quotes", text))?;
        cell.push_str(part);
        match behind.strip_prefix('"') {
            Some(next) => {
                cell.push('"');
                rest = next;
            }
            None if behind.is_empty() || behind.starts_with([',', '\n']) => return Ok((Cow::Owned(cell), behind)),
            None => return Err(Problem::garbled("values with a comma after the closing quote", text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Columns, csv_rows};

    #[test]
    fn quotes_commas_and_newlines_in_a_cell_are_read() {
        let rows: Vec<_> = csv_rows("a,\"b, \"\"c\"\"\nd\",\n\ne,,f").collect::<Result<_, _>>().unwrap();
        assert_eq!(rows, [vec!["a", "b, \"c\"\nd", ""], vec!["e", "", "f"]]);
        let error = csv_rows("a,\"b").next().unwrap().unwrap_err();
        assert!(error.to_string().contains("closed quotes"), "{error}");
        assert!(csv_rows("\"a\"b,c").next().unwrap().is_err());
    }

    #[test]
    fn a_missing_column_or_cell_is_named() {
        let columns = Columns::new("a list of servers", "# be_name srv_name", ' ').unwrap();
        let error = columns.column("srv_port").err().unwrap();
        assert_eq!(error.to_string(), "the answer is not a list of servers with a column `srv_port`: be_name srv_name");
        let name = columns.column("srv_name").unwrap();
        assert_eq!(name.text(&["web", "a"]).unwrap(), "a");
        assert!(name.text(&["web"]).unwrap_err().to_string().contains("`srv_name`: web"));
        assert!(name.number::<u32, _>(&["web", "a"]).unwrap_err().to_string().contains("a number for `srv_name`"));
        assert!(Columns::new("a list of servers", "be_name srv_name", ' ').is_err());
    }
}
