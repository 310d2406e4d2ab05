//! The two data sets as rows whose numbers are exactly as written.

use std::str::FromStr;

use anyhow::Context;
use serde_json::{Map, Number, Value};

const WEATHER: &str = include_str!("../../data/seattle-weather.csv");
const AIRPORTS: &str = include_str!("../../data/airports.csv");

/// A row of a data set; `fields` are without the id.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) fields: Map<String, Value>,
}

/// Seattle's weather, a row for each day.
pub(super) fn weather() -> anyhow::Result<Vec<Row>> {
    rows(
        WEATHER,
        "date",
        &["precipitation", "temp_max", "temp_min", "wind"],
    )
}

/// Airports, mostly of the United States; `NA` says that a city or state is not known.
pub(super) fn airports() -> anyhow::Result<Vec<Row>> {
    rows(AIRPORTS, "iata", &["latitude", "longitude"])
}

fn rows(text: &str, id: &str, numbers: &[&str]) -> anyhow::Result<Vec<Row>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let columns = reader.headers()?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let mut row = Row {
            id: String::new(),
            fields: Map::new(),
        };
        for (column, text) in columns.iter().zip(&record) {
            if column == id {
                text.clone_into(&mut row.id);
                continue;
            }
            let value = match text {
                "NA" => Value::Null,
                _ if numbers.contains(&column) => {
                    let number = Number::from_str(text);
                    number
                        .with_context(|| format!("{column} of {}", row.id))?
                        .into()
                }
                _ => text.into(),
            };
            row.fields.insert(column.to_owned(), value);
        }
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_row_and_every_digit_is_kept() {
        let weather = weather().unwrap();
        assert_eq!(weather.len(), 1_461);
        assert_eq!(weather[0].id, "2012/01/01");
        assert_eq!(weather[0].fields["precipitation"].to_string(), "0.0");
        let airports = airports().unwrap();
        assert_eq!(airports.len(), 3_376);
        assert_eq!(airports[0].fields["longitude"].to_string(), "-89.23450472");
        let unknown = airports.iter().find(|row| row.id == "CLD").unwrap();
        assert!(unknown.fields["city"].is_null());
    }
}
