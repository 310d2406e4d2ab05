//! Judges settings one by one and remembers every mistake.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::secret::Secret;
use super::settings::Settings;
use super::{Config, Mistakes};
use crate::duration;

/// The mistakes found so far. Every method answers `None` after it has noted one.
#[derive(Debug, Default)]
pub(super) struct Reading {
    mistakes: Vec<String>,
}

impl Reading {
    /// Notes a mistake. The text shows no secret.
    pub(super) fn mistake<T>(&mut self, setting: &str, problem: &str) -> Option<T> {
        self.mistakes.push(format!("{}: {problem}", name(setting)));
        None
    }

    /// A setting that must be there. An empty text counts as absent.
    pub(super) fn required<T>(
        &mut self,
        setting: &str,
        text: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match text.map(str::trim) {
            None | Some("") => self.mistake(setting, "is required"),
            Some(text) => match parse(text) {
                Ok(value) => Some(value),
                Err(problem) => self.mistake(setting, &problem),
            },
        }
    }

    /// A setting that may be missing.
    #[expect(
        clippy::option_option,
        reason = "outside: was it well formed; inside: was it given"
    )]
    pub(super) fn optional<T>(
        &mut self,
        setting: &str,
        text: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        match text.map(str::trim) {
            None | Some("") => Some(None),
            text => self.required(setting, text, parse).map(Some),
        }
    }

    /// A list, every member judged.
    pub(super) fn each<T>(
        &mut self,
        setting: &str,
        texts: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let given = texts
            .iter()
            .map(|text| text.trim())
            .filter(|text| !text.is_empty());
        let judged: Vec<_> = given
            .map(|text| self.required(setting, Some(text), &parse))
            .collect();
        judged.into_iter().collect()
    }

    /// A whole number in a range.
    pub(super) fn number(
        &mut self,
        setting: &str,
        text: &str,
        range: RangeInclusive<u16>,
    ) -> Option<u16> {
        self.required(setting, Some(text), |text| match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!(
                "`{text}` is not a number from {} to {}",
                range.start(),
                range.end()
            )),
        })
    }

    /// A span of time, not zero.
    pub(super) fn span(&mut self, setting: &str, text: &str) -> Option<Duration> {
        self.required(setting, Some(text), |text| match duration::parse(text)? {
            Duration::ZERO => Err("must not be zero".to_owned()),
            span => Ok(span),
        })
    }

    /// A span of time that may be zero.
    pub(super) fn span_or_none(&mut self, setting: &str, text: &str) -> Option<Duration> {
        self.required(setting, Some(text), duration::parse)
    }

    /// A secret, given itself or by its file, but not both.
    pub(super) fn secret(
        &mut self,
        setting: &str,
        given: Option<&Secret>,
        path: Option<&str>,
    ) -> Option<Secret> {
        let given = given.filter(|secret| !secret.expose().trim().is_empty());
        let path = path.map(str::trim).filter(|path| !path.is_empty());
        match (given, path) {
            (Some(secret), None) => Some(Secret::new(secret.expose().trim())),
            (None, Some(path)) => match file(Path::new(path)) {
                Ok(text) => Some(Secret::new(text.trim())),
                Err(problem) => self.mistake(&format!("{setting}-file"), &problem),
            },
            (None, None) => self.mistake(setting, &format!("this or --{setting}-file is required")),
            (Some(_), Some(_)) => {
                self.mistake(setting, &format!("give this or --{setting}-file, not both"))
            }
        }
    }

    /// The config, unless a mistake was noted.
    pub(super) fn finish(
        self,
        config: impl FnOnce() -> Option<Config>,
    ) -> Result<Config, Mistakes> {
        if !self.mistakes.is_empty() {
            return Err(Mistakes(self.mistakes));
        }
        Ok(config().expect("a value is missing only after a mistake was noted"))
    }
}

/// How a person may set a setting: its flag and its environment variable.
fn name(setting: &str) -> String {
    let settings = <Settings as clap::Args>::augment_args(clap::Command::new("serve"));
    let argument = settings
        .get_arguments()
        .find(|one| one.get_long() == Some(setting));
    let variable = argument.and_then(clap::Arg::get_env);
    match variable {
        Some(variable) => format!("--{setting} ({})", variable.display()),
        None => format!("--{setting}"),
    }
}

/// A file's text. The error names the file, not its content.
pub(super) fn file(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
