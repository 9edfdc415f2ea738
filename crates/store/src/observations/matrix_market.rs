//! Matrix Market exchange files of coordinates.
//!
//! Source: Boisvert, Pozo and Remington, "The Matrix Market Exchange Formats: Initial Design", 1996. Read are real and integer
//! coordinates, general and symmetric; of a symmetric one the other half is observed too.

use super::{Observations, ObservationsError};

fn wrong(line: usize, problem: impl Into<String>) -> ObservationsError {
    ObservationsError::Line { line, problem: problem.into() }
}

pub(super) fn parse(text: &str) -> Result<Observations, ObservationsError> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let banner = lines.next().map_or("", |(_, line)| line).to_lowercase();
    let symmetric = match banner.split_whitespace().collect::<Vec<_>>()[..] {
        ["%%matrixmarket", "matrix", "coordinate", "real" | "integer", "general"] => false,
        ["%%matrixmarket", "matrix", "coordinate", "real" | "integer", "symmetric"] => true,
        _ => {
            let problem = "expected %%MatrixMarket matrix coordinate, real or integer, general or symmetric";
            return Err(wrong(1, problem));
        }
    };
    let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('%'));
    let (at, sizes) = lines.next().ok_or_else(|| wrong(1, "the line of sizes is missing"))?;
    let numbers: Option<Vec<usize>> = sizes.split_whitespace().map(|part| part.parse().ok()).collect();
    let Some(&[rows, cols, count]) = numbers.as_deref() else {
        return Err(wrong(at, "expected the numbers of rows, columns and entries"));
    };
    if rows.max(cols) > u32::MAX as usize {
        return Err(wrong(at, "more than 2^32 rows or columns"));
    }
    let mut triples = Vec::new();
    let mut read = 0;
    for (line, text) in lines {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [row, col, value] = fields[..] else { return Err(wrong(line, "expected row, column, value")) };
        let index = |what: &str, text: &str, most: usize| match text.parse::<usize>() {
            Ok(number) if (1..=most).contains(&number) => Ok(number - 1),
            _ => Err(wrong(line, format!("the {what} is {text}; it counts from 1 to {most}"))),
        };
        let (row, col) = (index("row", row, rows)?, index("column", col, cols)?);
        let number: f64 =
            value.parse().map_err(|_| wrong(line, format!("the value is {value:?}, not a number")))?;
        if !number.is_finite() {
            return Err(wrong(line, format!("the value is {number}; leave out what was not observed")));
        }
        triples.push((row, col, number));
        if symmetric && row != col {
            triples.push((col, row, number));
        }
        read += 1;
    }
    if read != count {
        return Err(wrong(
            at,
            format!("{count} entries by the sizes, {read} in the file; it may be incomplete"),
        ));
    }
    Ok(Observations { rows, cols, triples })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_of_a_symmetric_matrix_are_read() {
        let text = "%%MatrixMarket matrix coordinate real symmetric\n% note\n3 3 2\n2 1 0.5\n3 3 -1\n";
        let found = parse(text).unwrap();
        assert_eq!((found.rows, found.cols), (3, 3));
        assert_eq!(found.triples, [(1, 0, 0.5), (0, 1, 0.5), (2, 2, -1.0)]);
    }

    #[test]
    fn the_wrong_line_is_named() {
        let head = "%%MatrixMarket matrix coordinate real general\n";
        for (text, line) in [
            ("%%MatrixMarket matrix array real general\n".to_owned(), 1),
            (head.to_owned(), 1),
            (format!("{head}2 2\n"), 2),
            (format!("{head}2 2 1\n3 1 1\n"), 3),
            (format!("{head}2 2 1\n0 1 1\n"), 3),
            (format!("{head}2 2 1\n1 1 nan\n"), 3),
            (format!("{head}2 2 2\n1 1 1\n"), 2),
        ] {
            let Err(ObservationsError::Line { line: found, .. }) = parse(&text) else { panic!("{text}") };
            assert_eq!(found, line, "{text}");
        }
    }
}
