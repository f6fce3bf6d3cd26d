//! When a schedule is due next.
//!
//! Owns reading the definition of a schedule (`cron` in a place's time zone, or
//! a `frequency`) and the next time after a given one. Holds no clock: the
//! caller names the time, and remembers what it has started. After a pause of
//! the gateway the caller asks from now on, so what was missed is not made up for.
//!
//! Daylight saving: a fixed time ("at 02:30") that a jump of the clock leaves
//! out happens right after the jump, and one that the clock shows twice happens
//! once, the first time; a repeating time ("every 10 minutes") follows the real
//! passing of time. A frequency is a fixed length of time and knows no zone.

use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

/// A cron expression is six fields of short lists.
const EXPRESSION_BYTES_MAX: usize = 200;

/// Fastest frequency, in seconds: below it the schedule would be a busy loop.
pub const FREQUENCY_S_MIN: i64 = 1;

/// Slowest frequency, in seconds: a leap year.
pub const FREQUENCY_S_MAX: i64 = 366 * 24 * 60 * 60;

/// How far ahead an occurrence may lie, in years: 29 February of a year that
/// is no leap year (2100) is eight years after the last one.
const YEARS_AHEAD_MAX: i16 = 12;

/// Twelve years in days.
const DAYS_LOOKED_AT: u16 = 4_383;

/// A schedule that can be due.
#[derive(Debug, Clone)]
pub struct Schedule {
    kind: Kind,
    text: String,
}

#[derive(Debug, Clone)]
enum Kind {
    Cron { cron: Box<Cron>, zone: TimeZone },
    Frequency { seconds: i64 },
}

/// Why a definition is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "a schedule is {{type: \"cron\", cron: {{expression, location}}}} or {{type: \"frequency\", frequency: {{interval, unit}}}}: {0}"
    )]
    Shape(String),
    #[error("`{expression}` is no cron expression: {why}")]
    Expression { expression: String, why: String },
    #[error("there is no time zone `{0}`")]
    Location(String),
    #[error("`{0}` never happens")]
    Never(String),
    #[error("a frequency lies between {FREQUENCY_S_MIN} second and 366 days")]
    Frequency,
}

// === impl Schedule ===

impl Schedule {
    /// Reads `{type: "cron", cron: {expression, location}}` or
    /// `{type: "frequency", frequency: {interval, unit}}`. A missing location is UTC.
    ///
    /// # Errors
    ///
    /// One sentence for the person who wrote the definition.
    pub fn parse(definition: &Value) -> Result<Self, Error> {
        match definition.get("type").and_then(Value::as_str) {
            Some("cron") => {
                let cron = &definition["cron"];
                let expression = cron.get("expression").and_then(Value::as_str);
                let location = match &cron["location"] {
                    Value::String(location) => location.as_str(),
                    Value::Null => "UTC",
                    _ => return Err(Error::Shape("`cron.location` is no text".to_owned())),
                };
                let expression = expression
                    .ok_or_else(|| Error::Shape("`cron.expression` is missing".into()))?;
                Self::cron(expression, location)
            }
            Some("frequency") => {
                let frequency = &definition["frequency"];
                let interval = frequency.get("interval").and_then(Value::as_f64);
                let interval = interval
                    .ok_or_else(|| Error::Shape("`frequency.interval` is no number".to_owned()))?;
                let unit = frequency.get("unit").and_then(Value::as_str);
                let unit =
                    unit.ok_or_else(|| Error::Shape("`frequency.unit` is missing".to_owned()))?;
                Self::frequency(interval, unit)
            }
            Some(other) => Err(Error::Shape(format!("`{other}` is no type of schedule"))),
            None => Err(Error::Shape("`type` is missing".to_owned())),
        }
    }

    /// Five fields, or six with the seconds first; `location` is a name of the
    /// time zone database (`Europe/Warsaw`).
    ///
    /// # Errors
    ///
    /// Not an expression, an unknown zone, or a time that never comes.
    pub fn cron(expression: &str, location: &str) -> Result<Self, Error> {
        let bad = |why: String| Error::Expression {
            expression: expression.chars().take(EXPRESSION_BYTES_MAX).collect(),
            why,
        };
        if expression.len() > EXPRESSION_BYTES_MAX {
            return Err(bad(format!("longer than {EXPRESSION_BYTES_MAX} bytes")));
        }
        let location = location.trim();
        let zone = if location.is_empty() || location.eq_ignore_ascii_case("utc") {
            TimeZone::UTC
        } else {
            TimeZone::get(location).map_err(|_| Error::Location(location.to_owned()))?
        };
        let cron = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build()
            .parse(expression)
            .map_err(|error| bad(error.to_string()))?;
        if !has_a_day(&cron) {
            return Err(Error::Never(expression.trim().to_owned()));
        }
        Ok(Self {
            kind: Kind::Cron {
                cron: Box::new(cron),
                zone,
            },
            text: format!("{} ({location})", expression.trim()),
        })
    }

    /// `unit` is second, minute, hour, day or week, with or without its plural.
    ///
    /// # Errors
    ///
    /// An unknown unit, or a length outside the limits.
    pub fn frequency(interval: f64, unit: &str) -> Result<Self, Error> {
        let unit_s = match unit.to_ascii_lowercase().trim_end_matches('s') {
            "second" | "sec" => 1.0,
            "minute" | "min" => 60.0,
            "hour" => 3_600.0,
            "day" => 86_400.0,
            "week" => 604_800.0,
            other => return Err(Error::Shape(format!("`{other}` is no unit of time"))),
        };
        let seconds = (interval * unit_s).round();
        if !(FREQUENCY_S_MIN as f64..=FREQUENCY_S_MAX as f64).contains(&seconds) {
            return Err(Error::Frequency);
        }
        Ok(Self {
            kind: Kind::Frequency {
                seconds: seconds as i64,
            },
            text: format!("every {interval} {unit}"),
        })
    }

    /// The first time due strictly after `after_ms`, both in milliseconds since
    /// 1970. `anchor_ms` is where a frequency starts to count (the creation of
    /// its owner), so that not every schedule of an hour is due at the full hour.
    /// `None` when there is none in the next twelve years.
    pub fn next_after(&self, after_ms: i64, anchor_ms: i64) -> Option<i64> {
        match &self.kind {
            Kind::Frequency { seconds } => {
                let step = seconds * 1_000;
                let passed = after_ms.checked_sub(anchor_ms)?.div_euclid(step);
                anchor_ms.checked_add(passed.checked_add(1)?.checked_mul(step)?)
            }
            Kind::Cron { cron, zone } => {
                let after = Timestamp::from_millisecond(after_ms).ok()?;
                let after = after.to_zoned(zone.clone());
                let year = after.year();
                let next = cron.find_next_occurrence(&after, false).ok()?;
                let soon = next.year() <= year.saturating_add(YEARS_AHEAD_MAX);
                let next_ms = next.timestamp().as_millisecond();
                (soon && next_ms > after_ms).then_some(next_ms)
            }
        }
    }

    /// For a person: `0 9 * * 1 (Europe/Warsaw)`, `every 5 minutes`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What `onTrigger` and the API show of the schedule.
    pub fn described(&self) -> Value {
        json!({ "schedule": self.text })
    }
}

/// Whether any day fits. A search for a time that never comes would go through
/// thousands of years first; this looks at twelve, from a leap year on.
fn has_a_day(cron: &Cron) -> bool {
    let first = jiff::civil::date(2024, 1, 1);
    let days = first.series(1.day()).take(usize::from(DAYS_LOOKED_AT));
    let mut days = days.map(|day| {
        let (year, month) = (i32::from(day.year()), day.month().unsigned_abs().into());
        let in_month = cron.pattern.month_match(month).unwrap_or(false);
        let day_of_month = day.day().unsigned_abs().into();
        let weekday = day.weekday().to_sunday_zero_offset().unsigned_abs();
        let weekday = Weekday::from_days_from_sunday(weekday.into());
        let fits = || cron.pattern.day_match(year, month, day_of_month, weekday);
        in_month && fits().unwrap_or(false)
    });
    days.any(|fits| fits)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use serde_json::json;

    use super::{Error, Schedule};

    fn ms(time: &str) -> i64 {
        time.parse::<Timestamp>().expect("a time").as_millisecond()
    }

    fn following(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
        let mut at = ms(from);
        (0..count)
            .map(|_| {
                at = schedule.next_after(at, 0).expect("a next time");
                Timestamp::from_millisecond(at).expect("a time").to_string()
            })
            .collect()
    }

    #[test]
    fn a_cron_expression_is_read_in_the_time_of_its_place() {
        let schedule = Schedule::parse(&json!({
            "type": "cron",
            "cron": {"expression": "0 9 * * 1-5", "location": "Europe/Warsaw"}
        }))
        .expect("a schedule");
        // Friday, then Monday after the clock went forward on Sunday.
        assert_eq!(
            following(&schedule, "2026-03-27T00:00:00Z", 2),
            ["2026-03-27T08:00:00Z", "2026-03-30T07:00:00Z"]
        );
        assert_eq!(schedule.text(), "0 9 * * 1-5 (Europe/Warsaw)");
    }

    #[test]
    fn a_fixed_time_in_the_gap_happens_right_after_it() {
        let schedule = Schedule::cron("30 2 * * *", "Europe/Berlin").expect("a schedule");
        assert_eq!(
            following(&schedule, "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
    }

    #[test]
    fn a_fixed_time_that_the_clock_shows_twice_happens_once() {
        let schedule = Schedule::cron("30 2 * * *", "Europe/Berlin").expect("a schedule");
        assert_eq!(
            following(&schedule, "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
    }

    #[test]
    fn a_repeating_time_keeps_its_distance_over_both_changes() {
        let schedule = Schedule::cron("*/30 * * * *", "Europe/Berlin").expect("a schedule");
        for from in ["2026-03-28T23:45:00Z", "2026-10-24T23:45:00Z"] {
            let mut at = ms(from);
            let mut before = None;
            for _ in 0..12 {
                at = schedule.next_after(at, 0).expect("a next time");
                if let Some(before) = before {
                    assert_eq!(at - before, 30 * 60 * 1_000, "from {from}");
                }
                before = Some(at);
            }
        }
    }

    #[test]
    fn six_fields_start_with_the_second() {
        let schedule = Schedule::cron("*/20 * * * * *", "UTC").expect("a schedule");
        assert_eq!(
            following(&schedule, "2026-01-01T00:00:19.999Z", 3),
            [
                "2026-01-01T00:00:20Z",
                "2026-01-01T00:00:40Z",
                "2026-01-01T00:01:00Z"
            ]
        );
    }

    #[test]
    fn a_frequency_counts_from_its_anchor() {
        let schedule = Schedule::parse(&json!({
            "type": "frequency", "frequency": {"interval": 5, "unit": "minutes"}
        }))
        .expect("a schedule");
        let anchor = ms("2026-01-01T00:02:00Z");
        let due = |after: &str| schedule.next_after(ms(after), anchor);
        assert_eq!(
            due("2026-01-01T00:02:00Z"),
            Some(ms("2026-01-01T00:07:00Z"))
        );
        assert_eq!(
            due("2026-01-01T10:06:59Z"),
            Some(ms("2026-01-01T10:07:00Z"))
        );
        assert_eq!(
            due("2025-12-31T23:58:00Z"),
            Some(ms("2026-01-01T00:02:00Z"))
        );
    }

    #[test]
    fn what_is_no_schedule_says_why() {
        let error = |value| {
            Schedule::parse(&value)
                .expect_err("no schedule")
                .to_string()
        };
        assert!(error(json!({})).contains("`type` is missing"));
        assert!(error(json!({"type": "moon"})).contains("`moon`"));
        assert!(error(json!({"type": "cron", "cron": {}})).contains("expression"));
        assert!(
            error(json!({"type": "frequency", "frequency": {"interval": 1, "unit": "blink"}}))
                .contains("unit")
        );
        assert_eq!(
            Schedule::cron("0 9 * * *", "Mars/Olympus").expect_err("no zone"),
            Error::Location("Mars/Olympus".to_owned())
        );
        assert!(matches!(
            Schedule::cron("61 * * * *", "UTC"),
            Err(Error::Expression { .. })
        ));
        assert!(matches!(
            Schedule::cron(&"1,".repeat(200), "UTC"),
            Err(Error::Expression { .. })
        ));
        assert_eq!(
            Schedule::cron("0 0 30 2 *", "UTC").expect_err("no such day"),
            Error::Never("0 0 30 2 *".to_owned())
        );
        for never in ["0 0 31 2,4,6,9,11 *", "* * * 31 4 *"] {
            assert!(matches!(Schedule::cron(never, "UTC"), Err(Error::Never(_))));
        }
        for rare in [
            "0 0 29 2 *",
            "0 0 L 2 *",
            "0 0 29 2 1#5",
            "0 0 * * 5L",
            "0 0 15W * *",
        ] {
            let schedule = Schedule::cron(rare, "UTC").expect("a schedule");
            assert!(
                schedule.next_after(ms("2026-01-01T00:00:00Z"), 0).is_some(),
                "{rare}"
            );
        }
        for interval in [0.0, 0.4, -1.0, f64::NAN, 1e300] {
            assert_eq!(
                Schedule::frequency(interval, "seconds").expect_err("outside the limits"),
                Error::Frequency
            );
        }
    }

    proptest! {
        #[test]
        fn the_next_time_is_later_and_nothing_lies_between(
            after in 1_600_000_000_000i64..2_000_000_000_000,
            minute in 0u8..60, hour in 0u8..24, zone in 0usize..4,
        ) {
            let zone = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"][zone];
            let schedule = Schedule::cron(&format!("{minute} {hour} * * *"), zone).expect("a schedule");
            let next = schedule.next_after(after, 0).expect("a next time");
            prop_assert!(next > after);
            // A day has at most 25 hours, and a time at most a day of waiting.
            prop_assert!(next - after <= 26 * 3_600_000, "{}", next - after);
            // Asked from just before, the answer is the same: nothing lies between.
            prop_assert_eq!(schedule.next_after(next - 1, 0), Some(next));
        }

        #[test]
        fn a_frequency_is_regular(after in 0i64..4_000_000_000_000, anchor in 0i64..4_000_000_000_000, s in 1i64..1_000_000) {
            let schedule = Schedule::frequency(s as f64, "seconds").expect("a schedule");
            let next = schedule.next_after(after, anchor).expect("a next time");
            prop_assert!(next > after && next - after <= s * 1_000);
            prop_assert_eq!((next - anchor).rem_euclid(s * 1_000), 0);
        }
    }
}
