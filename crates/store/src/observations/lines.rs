//! Lines of `row, column, value`, separated by commas, semicolons, tabs or blanks; a first line of names is passed over, and columns
//! behind the third (a time stamp, say) are not read.

use super::{Observations, ObservationsError};

/// The fields of each line with its number; without blank lines, comments (`#`, `%`) and a head.
fn fields(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(['#', '%']));
    lines.enumerate().filter_map(|(index, (number, line))| {
        let separator = [',', ';', '\t'].into_iter().find(|&separator| line.contains(separator));
        let fields: Vec<&str> = match separator {
            Some(separator) => line.split(separator).map(str::trim).collect(),
            None => line.split_whitespace().collect(),
        };
        // Only the first line may be a head: words where numbers should be.
        let head = index == 0 && fields.first().is_some_and(|field| field.parse::<f64>().is_err());
        (!head).then_some((number, fields))
    })
}

fn wrong(line: usize, problem: impl Into<String>) -> ObservationsError {
    ObservationsError::Line { line, problem: problem.into() }
}

/// An index, counted from 0.
fn index(line: usize, what: &str, text: &str, from_one: bool) -> Result<usize, ObservationsError> {
    let number: u64 = text
        .parse()
        .map_err(|_| wrong(line, format!("the {what} is {text:?}, not a whole number of 0 or more")))?;
    let number = match (from_one, number) {
        (true, 0) => {
            return Err(wrong(line, format!("the {what} is 0, but indices were said to count from 1")));
        }
        (true, number) => number - 1,
        (false, number) => number,
    };
    // Factors of more rows would not be held anyway.
    if number < u64::from(u32::MAX) {
        Ok(number as usize)
    } else {
        Err(wrong(line, format!("the {what} {text} is beyond 2^32")))
    }
}

/// Row and column of a line.
fn place(
    line: usize,
    fields: &[&str],
    from_one: bool,
    least: usize,
) -> Result<(usize, usize), ObservationsError> {
    if fields.len() < least {
        let wanted = if least == 2 { "row, column" } else { "row, column, value" };
        return Err(wrong(line, format!("{} fields where {wanted} are expected", fields.len())));
    }
    Ok((index(line, "row", fields[0], from_one)?, index(line, "column", fields[1], from_one)?))
}

/// Reads triples; the shape is that of the largest indices.
pub(super) fn parse(text: &str, from_one: bool) -> Result<Observations, ObservationsError> {
    let mut triples = Vec::new();
    for (line, fields) in fields(text) {
        let (row, col) = place(line, &fields, from_one, 3)?;
        let value: f64 = fields[2]
            .parse()
            .map_err(|_| wrong(line, format!("the value is {:?}, not a number", fields[2])))?;
        if !value.is_finite() {
            return Err(wrong(line, format!("the value is {value}; leave out what was not observed")));
        }
        triples.push((row, col, value));
    }
    let most =
        |of: fn(&(usize, usize, f64)) -> usize| triples.iter().map(of).max().map_or(0, |most| most + 1);
    Ok(Observations { rows: most(|triple| triple.0), cols: most(|triple| triple.1), triples })
}

/// Reads places; more fields are not looked at.
pub(super) fn places(text: &str, from_one: bool) -> Result<Vec<(usize, usize)>, ObservationsError> {
    fields(text).map(|(line, fields)| place(line, &fields, from_one, 2)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_comments_and_further_columns_are_passed_over() {
        let found =
            parse("userId,movieId,rating,timestamp\n3,0,4.5,964982703\n\n# note\n0,2,1,0\n", false).unwrap();
        assert_eq!((found.rows, found.cols), (4, 3));
        assert_eq!(found.triples, [(3, 0, 4.5), (0, 2, 1.0)]);
        assert_eq!(parse("1\t2\t-1e-3\n", true).unwrap().triples, [(0, 1, -1e-3)]);
        assert_eq!(parse("1 2  7", true).unwrap().triples, [(0, 1, 7.0)]);
        assert_eq!(places("row;column\n4;5\n", false).unwrap(), [(4, 5)]);
        assert!(parse("", false).unwrap().triples.is_empty());
    }

    #[test]
    fn the_wrong_line_is_named() {
        for (text, from_one, line, part) in [
            ("0,0,1\n0,1\n", false, 2, "2 fields"),
            ("0,0,1\n0,x,1\n", false, 2, "column is \"x\""),
            ("0,0,1\n-1,0,1\n", false, 2, "row is \"-1\""),
            ("0,0,1\n0,1,nan\n", false, 2, "NaN"),
            ("0,0,1\n0,1,inf\n", false, 2, "inf"),
            ("0,0,one\n", false, 1, "not a number"),
            ("1,1,1\n0,1,1\n", true, 2, "count from 1"),
            ("0,99999999999,1\n", false, 1, "beyond"),
        ] {
            let Err(ObservationsError::Line { line: found, problem }) = parse(text, from_one) else {
                panic!("{text}")
            };
            assert!(found == line && problem.contains(part), "{text}: line {found}, {problem}");
        }
    }
}
