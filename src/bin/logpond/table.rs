//! Tables for people. The cells are escaped here, once and for all of them.

use crate::text::escape;

/// Where the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table of `N` columns.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    columns: [(&'static str, Align); N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(columns: [(&'static str, Align); N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| escape(&cell)));
    }

    /// The head and the rows, each column as wide as its widest cell. The head alone says that there
    /// is nothing to list.
    pub(crate) fn render(&self) -> String {
        let heads = self.columns.map(|(head, _)| head.to_owned());
        let mut widths = [0; N];
        for row in std::iter::once(&heads).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let cells = row.iter().zip(&widths).zip(&self.columns);
            let cells = cells.map(|((cell, width), (_, align))| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cells_escaped() {
        let mut table = Table::new([("TOPIC", Align::Left), ("RECORDS", Align::Right)]);
        assert_eq!(table.render(), "TOPIC  RECORDS\n");
        table.row(["emails\u{1b}".to_owned(), "7".to_owned()]);
        table.row(["a".to_owned(), "12,345,678".to_owned()]);
        assert_eq!(
            table.render(),
            "TOPIC            RECORDS\nemails\\u{1b}           7\na             12,345,678\n"
        );
    }
}
