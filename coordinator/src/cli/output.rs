//! What commands say: tables for people, JSON lines for programs. Results go to standard output,
//! complaints to standard error.

use std::io::{self, IsTerminal, Write};

use crate::failure::Failure;
use comfy_table::{Cell, Table, presets};
use serde_json::Value;

/// Where a command's results go.
pub(crate) struct Output {
    json: bool,
    coloured: bool,
    to: Box<dyn Write + Send>,
}

/// A colour, by its number on terminals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Magenta = 35,
    Cyan = 36,
    Grey = 90,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("json", &self.json)
            .finish_non_exhaustive()
    }
}

impl Output {
    /// Standard output.
    pub(crate) fn standard(json: bool) -> Self {
        Self {
            coloured: io::stdout().is_terminal(),
            ..Self::new(json, Box::new(io::stdout()))
        }
    }

    /// Any other place.
    pub(crate) fn new(json: bool, to: Box<dyn Write + Send>) -> Self {
        Self {
            json,
            coloured: false,
            to,
        }
    }

    /// Whether a program reads it.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// A text in a colour, where that can be seen.
    pub(crate) fn paint(&self, colour: Colour, text: &str) -> String {
        if self.coloured {
            format!("\x1b[{}m{text}\x1b[0m", colour as u8)
        } else {
            text.to_owned()
        }
    }

    /// A line as it is.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        match writeln!(self.to, "{text}").and_then(|()| self.to.flush()) {
            Ok(()) => Ok(()),
            // The reader has seen enough: `… | head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Failure::internal(format!("standard output: {error}"))),
        }
    }

    /// One thing: its JSON, or a name and value a line.
    pub(crate) fn record(
        &mut self,
        json: impl FnOnce() -> Value,
        fields: &[(&str, String)],
    ) -> Result<(), Failure> {
        if self.json {
            return self.line(&json().to_string());
        }
        let mut table = plain();
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            table.add_row([Cell::new(name), Cell::new(value)]);
        }
        self.table(table)
    }

    /// Many things: their JSON, one a line, or a table.
    pub(crate) fn rows<T>(
        &mut self,
        things: &[T],
        json: impl Fn(&T) -> Value,
        header: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        if self.json {
            for thing in things {
                self.line(&json(thing).to_string())?;
            }
            return Ok(());
        }
        if things.is_empty() {
            return self.line("none");
        }
        let mut table = plain();
        table.set_header(header.iter().map(|name| name.to_uppercase()));
        table.add_rows(things.iter().map(row));
        self.table(table)
    }

    fn table(&mut self, mut table: Table) -> Result<(), Failure> {
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.line(&table.trim_fmt())
    }
}

/// Says on standard error why the command failed.
pub(super) fn complain(failure: &Failure, json: bool) {
    note(&if json {
        failure.json().to_string()
    } else {
        failure.text()
    });
}

/// A line on standard error: what the person should know beside the result.
#[expect(clippy::print_stderr, reason = "this is what standard error is for")]
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}
