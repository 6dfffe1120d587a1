//! Tables for people: columns as wide as their longest cell.

/// Lays rows out under a head. Cells are stripped of control characters, since
/// names come from others.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let longest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        head.get(column)
            .map_or(0, |title| title.chars().count())
            .max(longest)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(&rows) {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The text without what a terminal would act on.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_escapes_are_stripped() {
        let rows = [
            vec!["a\u{1b}[31m".to_owned(), "x".to_owned()],
            vec!["bb".into(), "y".into()],
        ];
        assert_eq!(
            table(&["N", "LONG"], &rows),
            "N      LONG\na[31m  x\nbb     y\n"
        );
    }
}
