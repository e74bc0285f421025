//! Query strings in, checked values out; whatever cannot be used is a problem that
//! names the parameter and the fix. Knows no book.

use axum::extract::Query;
use axum::http::Uri;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use odometer_schemas::log::{OFFSET_MAX, Position};
use odometer_schemas::period::parse_month;
use odometer_schemas::time::TimeMs;

use super::problem::Problem;

/// Bytes of a caller's text that a problem quotes: enough to recognise it.
const QUOTE_BYTES_MAX: usize = 80;

/// The parameters of one request: each is known, and there once.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// The parameters of `uri`, which may be those of `known`.
    pub(crate) fn read(uri: &Uri, known: &[&'static str]) -> Result<Self, Problem> {
        let Query(given): Query<Vec<(String, String)>> = Query::try_from_uri(uri).map_err(|e| {
            Problem::parameter("query", e.body_text(), "write the query as name=value pairs joined by &")
        })?;
        for (at, (name, _)) in given.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let detail = format!("there is no parameter `{}` here", quoted(name));
                return Err(Problem::parameter(quoted(name), detail, format!("use {}", listed(known))));
            }
            if given[..at].iter().any(|(other, _)| other == name) {
                let detail = format!("`{name}` is given twice");
                return Err(Problem::parameter(name, detail, "give each parameter once"));
            }
        }
        Ok(Self(given))
    }

    /// The value of `name`, when there is one. An empty value is a mistake: it would
    /// ask for something that cannot exist.
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<&str>, Problem> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, value)) if value.is_empty() => {
                Err(Problem::parameter(name, format!("`{name}` is empty"), "give a value, or leave the parameter out"))
            }
            found => Ok(found.map(|(_, value)| value.as_str())),
        }
    }

    /// The value of `name` as an owned text.
    pub(crate) fn owned(&self, name: &'static str) -> Result<Option<String>, Problem> {
        Ok(self.text(name)?.map(str::to_owned))
    }

    /// The value of `name`, which must be given.
    pub(crate) fn required(&self, name: &'static str, example: &str) -> Result<&str, Problem> {
        self.text(name)?.ok_or_else(|| {
            Problem::parameter(
                name,
                format!("`{name}` is required"),
                format!("give {name}, such as `{name}={example}`"),
            )
        })
    }

    /// A point in time: RFC 3339, or a day or month, which is its first midnight UTC.
    pub(crate) fn time(&self, name: &'static str) -> Result<Option<TimeMs>, Problem> {
        let read = |text| {
            parse_time(text).ok_or_else(|| {
                let detail = format!("`{}` is not a time between the years 2000 and 2199", quoted(text));
                let fix = "write 2023-11-16T18:00:00Z (the + of a zone as %2B), 2023-11-16 or 2023-11";
                Problem::parameter(name, detail, fix)
            })
        };
        self.text(name)?.map(read).transpose()
    }

    /// One of a few names.
    pub(crate) fn choice<T: Copy>(
        &self,
        name: &'static str,
        choices: &[(&'static str, T)],
    ) -> Result<Option<T>, Problem> {
        let read = |text: &str| {
            choices.iter().find(|(known, _)| *known == text).map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<&str> = choices.iter().map(|(known, _)| *known).collect();
                let detail = format!("`{}` is none of the values of `{name}`", quoted(text));
                Problem::parameter(name, detail, format!("use {}", listed(&names)))
            })
        };
        self.text(name)?.map(read).transpose()
    }

    /// How many entries to answer with: 1 to `max`.
    pub(crate) fn limit(&self, default: usize, max: usize) -> Result<usize, Problem> {
        let Some(text) = self.text("limit")? else { return Ok(default) };
        whole(text).and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=max).contains(n)).ok_or_else(|| {
            let detail = format!("`{}` is not a number from 1 to {max}", quoted(text));
            Problem::parameter("limit", detail, format!("ask for at most {max} and go on with `after`"))
        })
    }

    /// A partition's number, below `partitions`.
    pub(crate) fn partition(&self, partitions: u32) -> Result<Option<u32>, Problem> {
        let Some(text) = self.text("partition")? else { return Ok(None) };
        let number = whole(text).and_then(|n| u32::try_from(n).ok()).filter(|n| *n < partitions);
        number.map(Some).ok_or_else(|| {
            let detail = format!("`{}` is none of the {partitions} partitions", quoted(text));
            Problem::parameter("partition", detail, format!("give a number from 0 to {}", partitions.saturating_sub(1)))
        })
    }

    /// The last position of the page before: `partition/offset/index`.
    pub(crate) fn after_position(&self) -> Result<Option<Position>, Problem> {
        self.after("0/42/7", |parts| {
            let [partition, offset, index] = parts.try_into().ok()?;
            let index = u16::try_from(whole(index)?).ok()?;
            Some(Position { partition: u32::try_from(whole(partition)?).ok()?, offset: offset_of(offset)?, index })
        })
    }

    /// The last log entry of the page before: `partition/offset`.
    pub(crate) fn after_entry(&self) -> Result<Option<(u32, u64)>, Problem> {
        self.after("0/42", |parts| {
            let [partition, offset] = parts.try_into().ok()?;
            Some((u32::try_from(whole(partition)?).ok()?, offset_of(offset)?))
        })
    }

    fn after<T>(&self, example: &str, read: impl FnOnce(Vec<&str>) -> Option<T>) -> Result<Option<T>, Problem> {
        let Some(text) = self.text("after")? else { return Ok(None) };
        read(text.split('/').collect()).map(Some).ok_or_else(|| {
            let detail = format!("`{}` is not a place in the log such as {example}", quoted(text));
            Problem::parameter("after", detail, "give the `next` of the page before as it is")
        })
    }
}

/// A whole number without a sign; `u64::from_str` would also take a plus.
fn whole(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn offset_of(text: &str) -> Option<u64> {
    whole(text).filter(|offset| *offset < OFFSET_MAX)
}

fn parse_time(text: &str) -> Option<TimeMs> {
    let time = match text.len() {
        7 => parse_month(text)?.start,
        10 => day(text)?,
        _ => return TimeMs::parse_rfc3339(text).ok(),
    };
    time.checked().ok()
}

/// The midnight, UTC, that `YYYY-MM-DD` begins with.
fn day(text: &str) -> Option<TimeMs> {
    let [year, month, day]: [&str; 3] = text.split('-').collect::<Vec<_>>().try_into().ok()?;
    let shaped = [year.len(), month.len(), day.len()] == [4, 2, 2];
    let number = |part: &str| whole(part).and_then(|n| i16::try_from(n).ok());
    let small = |part: &str| number(part).and_then(|n| i8::try_from(n).ok());
    let date = shaped.then(|| Date::new(number(year)?, small(month)?, small(day)?).ok()).flatten()?;
    TimeZone::UTC.to_timestamp(date.to_datetime(jiff::civil::Time::midnight())).ok().map(TimeMs::floor)
}

/// A caller's text as far as a problem quotes it.
pub(crate) fn quoted(text: &str) -> String {
    if text.len() <= QUOTE_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(QUOTE_BYTES_MAX)])
}

/// `a, b or c`.
pub(crate) fn listed(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, known: &[&'static str]) -> Result<Parameters, Problem> {
        Parameters::read(&format!("/x?{query}").parse().unwrap(), known)
    }

    fn problem<T: std::fmt::Debug>(result: Result<T, Problem>) -> String {
        serde_json::to_string(&result.unwrap_err()).unwrap()
    }

    #[test]
    fn unknown_and_repeated_parameters_are_named() {
        let error = problem(read("tenant=a&tennant=b", &["tenant", "meter"]));
        assert!(error.contains("\"field\":\"tennant\"") && error.contains("use tenant or meter"), "{error}");
        let error = problem(read("tenant=a&tenant=a", &["tenant"]));
        assert!(error.contains("\"field\":\"tenant\"") && error.contains("given twice"), "{error}");
        let error = problem(read("", &["tenant"]).unwrap().required("tenant", "acme"));
        assert!(error.contains("tenant=acme"), "{error}");
        let error = problem(read("tenant=", &["tenant"]).unwrap().text("tenant"));
        assert!(error.contains("is empty"), "{error}");
        let long = "x".repeat(500);
        assert!(problem(read(&format!("{long}=1"), &["tenant"])).len() < 400);
    }

    #[test]
    fn times_are_rfc_3339_days_or_months() {
        let cases = [
            ("2023-11-16T18:17:03.979Z", Some(1_700_158_623_979)),
            ("2023-11-16T19:17:03.979%2B01:00", Some(1_700_158_623_979)),
            ("2023-11-16", Some(1_700_092_800_000)),
            ("2023-11", Some(1_698_796_800_000)),
            ("2023-02-29", None),
            ("2023-2-2", None),
            ("2023-+1-01", None),
            ("23-11-2023", None),
            ("2023-13", None),
            ("1999-12", None),
            ("2200-01-01", None),
            ("2023-11-16T18:17:03", None),
            ("1700158623", None),
            ("now", None),
        ];
        for (text, expected) in cases {
            let parameters = read(&format!("from={text}"), &["from"]).unwrap();
            assert_eq!(parameters.time("from").ok().flatten(), expected.map(TimeMs), "{text}");
        }
    }

    #[test]
    fn limits_partitions_and_places_are_whole_numbers_in_range() {
        let one = |query: &str| read(query, &["limit", "partition", "after"]).unwrap();
        for (text, expected) in
            [("1", Some(1)), ("10", Some(10)), ("0", None), ("11", None), ("+1", None), ("-1", None), ("1.0", None)]
        {
            assert_eq!(one(&format!("limit={text}")).limit(5, 10).ok(), expected, "{text}");
        }
        assert_eq!(one("").limit(5, 10).unwrap(), 5);
        assert_eq!(one("partition=3").partition(4).unwrap(), Some(3));
        assert!(problem(one("partition=4").partition(4)).contains("from 0 to 3"));
        let position = Position { partition: 1, offset: 22, index: 333 };
        assert_eq!(one("after=1/22/333").after_position().unwrap(), Some(position));
        assert_eq!(one("after=1/22").after_entry().unwrap(), Some((1, 22)));
        for text in ["1/22", "1/22/333/4", "a/b/c", "1/22/70000", "1//3", "-1/2/3", "1/99999999999999999999/3"] {
            let error = problem(one(&format!("after={text}")).after_position());
            assert!(error.contains("\"field\":\"after\""), "{error}");
        }
    }
}
