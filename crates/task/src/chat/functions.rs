//! What chat templates may call beside Jinja's own: `raise_exception`, `strftime_now`, `tojson`.

use std::io::Write;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::error::TaskError;

/// The day that a template sees as today. The caller gives it, so that the same data gives the same tokens on any day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    year: i32,
    month: u8,
    day: u8,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Date {
    /// A day of the Gregorian calendar, month and day from 1.
    ///
    /// # Errors
    /// [`TaskError::NoSuchDate`].
    pub fn new(year: i32, month: u8, day: u8) -> Result<Date, TaskError> {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + u8::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => 0,
        };
        if (1..=days).contains(&day) && (1..=9999).contains(&year) {
            Ok(Date { year, month, day })
        } else {
            Err(TaskError::NoSuchDate { year, month, day })
        }
    }

    /// The day of the week, Sunday 0 (Sakamoto's method).
    fn weekday(self) -> usize {
        const SHIFT: [i32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = self.year - i32::from(self.month < 3);
        let shift = SHIFT[usize::from(self.month) - 1];
        let day = year + year / 4 - year / 100 + year / 400 + shift + i32::from(self.day);
        day.rem_euclid(7) as usize
    }

    /// The day in a `strftime` format; hours, minutes and seconds are 0.
    fn format(self, format: &str) -> Result<String, Error> {
        let month = MONTHS[usize::from(self.month) - 1];
        let weekday = DAYS[self.weekday()];
        let mut out = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                out.push(letter);
                continue;
            }
            let code = letters.next();
            // `%-d`: without leading zero.
            let (bare, code) = if code == Some('-') { (true, letters.next()) } else { (false, code) };
            let two = |number: u8| if bare { number.to_string() } else { format!("{number:02}") };
            out.push_str(&match code {
                Some('Y') => format!("{:04}", self.year),
                Some('y') => format!("{:02}", self.year % 100),
                Some('m') => two(self.month),
                Some('d') => two(self.day),
                Some('B') => month.to_owned(),
                Some('b') => month.chars().take(3).collect(),
                Some('A') => weekday.to_owned(),
                Some('a') => weekday.chars().take(3).collect(),
                Some('H' | 'M' | 'S') => two(0),
                Some('%') => "%".to_owned(),
                other => {
                    let code: String = other.into_iter().collect();
                    let detail = format!("strftime_now: `%{code}` in {format:?} is not supported");
                    return Err(Error::new(ErrorKind::InvalidOperation, detail));
                }
            });
        }
        Ok(out)
    }
}

/// Adds the functions and filters that the `transformers` library gives to chat templates.
pub(super) fn add(environment: &mut Environment<'static>, date: Option<Date>) {
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    // Without a date the function is not defined; templates that use it then fall back to a day of their own.
    if let Some(date) = date {
        environment.add_function("strftime_now", move |format: String| date.format(&format));
    }
    environment.add_filter("tojson", to_json);
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)` of Python; Jinja's own filter would write `<` as `\u003c`.
fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let failed = |detail: String| Error::new(ErrorKind::BadSerialization, detail);
    let mut out = Vec::new();
    match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Python(CompactFormatter))),
        Some(width) => {
            let spaces = " ".repeat(width);
            value.serialize(&mut Serializer::with_formatter(
                &mut out,
                PrettyFormatter::with_indent(spaces.as_bytes()),
            ))
        }
    }
    .map_err(|e| failed(e.to_string()))?;
    String::from_utf8(out).map_err(|e| failed(e.to_string()))
}

/// Python's separators: a space after each comma and colon.
struct Python(CompactFormatter);

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.0.begin_object_value(writer)?;
        writer.write_all(b" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_as_strftime_does() {
        // Weekdays from the calendar: 1 January 2000 was a Saturday, 29 February 2024 a Thursday.
        let rows = [
            ((2000, 1, 1), "%A %d %b %Y", "Saturday 01 Jan 2000"),
            ((2024, 2, 29), "%a, %B %-d, %y 100%%", "Thu, February 29, 24 100%"),
            ((2024, 7, 4), "%-m/%d %H:%M:%S", "7/04 00:00:00"),
        ];
        for ((year, month, day), format, expected) in rows {
            assert_eq!(Date::new(year, month, day).unwrap().format(format).unwrap(), expected);
        }
        assert!(Date::new(2024, 1, 1).unwrap().format("%Q").is_err());
    }

    #[test]
    fn days_out_of_the_calendar_are_refused() {
        for (year, month, day) in
            [(2023, 2, 29), (2024, 13, 1), (2024, 4, 31), (2024, 0, 1), (2024, 1, 0), (1900, 2, 29)]
        {
            assert!(Date::new(year, month, day).is_err(), "{year}-{month}-{day}");
        }
    }

    #[test]
    fn json_is_written_as_python_does() {
        let mut environment = Environment::new();
        add(&mut environment, None);
        let write = |source: &str| environment.render_str(source, ()).unwrap();
        assert_eq!(write("{{ {'b': [1, 'é<'], 'a': none} | tojson }}"), r#"{"b": [1, "é<"], "a": null}"#);
        assert_eq!(write("{{ {'b': []} | tojson(indent=2) }}"), "{\n  \"b\": []\n}");
    }
}
