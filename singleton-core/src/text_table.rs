//! Tables of text for reports.

use std::fmt;
use std::time::Duration;

use crate::escaped::Escaped;

/// A table with aligned columns. Each cell is escaped, so a row is one line.
pub(crate) struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(crate) fn new(titles: [&str; COLUMNS]) -> Self {
        Table {
            rows: vec![titles.map(str::to_owned)],
        }
    }

    pub(crate) fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.map(|cell| Escaped(cell).to_string()));
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; COLUMNS];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(&format!("{cell:width$}  "));
            }
            writeln!(formatter, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Returns a time in milliseconds, rounded to three decimals.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_one_line() {
        let mut table = Table::new(["service", "error"]);
        table.row([
            "Mail".to_owned(),
            "é\nsent\t\u{1b}[2J\u{2028}\u{202e}".to_owned(),
        ]);
        let shown = "service  error\nMail     é\\nsent\\t\\u{1b}[2J\\u{2028}\\u{202e}\n";
        assert_eq!(table.to_string(), shown);
    }
}
