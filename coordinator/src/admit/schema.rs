//! The schema that a customer pushes, read strictly and compiled once per version.

use std::collections::{BTreeMap, BTreeSet};

use backends::json;
use serde_json::{Map, Value};

use super::model::{Backing, Model};
use super::sync_group::Template;
use super::text;
use crate::refusal::Refusal;

mod shape;

/// The most templates of sync groups that one model may have.
const MAX_TEMPLATES: usize = 50;

/// One version of an organization's schema.
///
/// The document is `{"models": {NAME: {"backing": "managed" | {"dataSource": ID}, "schema": …,
/// "syncGroups"?: [TEMPLATE]}}}`. A model without a backing is managed. Its `schema` is JSON Schema
/// 2020-12 with `"type": "object"`, whose `properties` name the fields; `id` is a string field of
/// every model. `format` annotates and is not checked, as the standard has it.
#[derive(Debug)]
pub struct Schema {
    /// 1, 2, 3 … per organization.
    pub version: i32,
    /// The models, by name.
    pub models: BTreeMap<String, Model>,
    /// The models of each Data Source.
    sources: BTreeMap<String, Vec<String>>,
    document: String,
}

impl Schema {
    /// Reads and compiles a document.
    ///
    /// May take a while for a large document.
    ///
    /// # Errors
    /// `schema_invalid` with the path in the document and the rule.
    pub fn compile(version: i32, document: &[u8]) -> Result<Self, Refusal> {
        let document = json::parse(document)
            .map_err(|error| Invalid::new(error.path.clone(), error.rule.to_string()).refusal())?;
        let models = models(&document).map_err(Invalid::refusal)?;
        let mut sources = BTreeMap::<_, Vec<_>>::new();
        for (name, model) in &models {
            if let Backing::Source(source) = &model.backing {
                sources
                    .entry(source.clone())
                    .or_default()
                    .push(name.clone());
            }
        }
        Ok(Self {
            version,
            models,
            sources,
            document: json::canonical(&document),
        })
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.get(name)
    }

    /// The document's one text: equal schemas have equal texts.
    pub fn canonical_document(&self) -> &str {
        &self.document
    }

    /// The ids of the Data Sources that the models name.
    pub fn sources(&self) -> BTreeSet<&str> {
        self.sources.keys().map(String::as_str).collect()
    }

    /// The names of the models whose rows live in this Data Source.
    pub fn models_of(&self, source: &str) -> &[String] {
        self.sources.get(source).map_or(&[], Vec::as_slice)
    }
}

/// What is wrong with a document, and where.
#[derive(Debug)]
struct Invalid {
    path: String,
    rule: String,
}

impl Invalid {
    fn new(path: impl Into<String>, rule: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            rule: rule.into(),
        }
    }

    fn under(self, base: &str) -> Self {
        Self {
            path: text::joined(base, &self.path),
            rule: self.rule,
        }
    }

    fn refusal(self) -> Refusal {
        let field = text::joined("document_json", &self.path);
        Refusal::field("schema_invalid", field, self.rule).with("path", self.path)
    }
}

fn models(document: &Value) -> Result<BTreeMap<String, Model>, Invalid> {
    let document = object(document, "")?;
    known_keys(document, &["models"])?;
    let models = document
        .get("models")
        .ok_or_else(|| Invalid::new("models", "is required"))?;
    object(models, "models")?
        .iter()
        .map(|(name, entry)| {
            if !is_model_name(name) {
                let rule = "a model's name is a letter, then at most 62 letters, digits or `_`";
                let path = format!("models.{}", text::quoted(name));
                return Err(Invalid::new(path, rule));
            }
            let model =
                model(name, entry).map_err(|error| error.under(&format!("models.{name}")))?;
            Ok((name.clone(), model))
        })
        .collect()
}

fn is_model_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn model(name: &str, entry: &Value) -> Result<Model, Invalid> {
    let entry = object(entry, "")?;
    known_keys(entry, &["backing", "schema", "syncGroups"])?;
    let backing = entry.get("backing").map_or(Ok(Backing::Managed), backing)?;
    let schema = entry
        .get("schema")
        .ok_or_else(|| Invalid::new("schema", "is required"))?;
    let shape = shape::of(object(schema, "schema")?).map_err(|error| error.under("schema"))?;
    let mut model = Model {
        name: name.to_owned(),
        backing,
        shape,
        groups: Vec::new(),
    };
    if let Some(templates) = entry.get("syncGroups") {
        model.groups = groups(templates, &model).map_err(|error| error.under("syncGroups"))?;
    }
    Ok(model)
}

fn backing(backing: &Value) -> Result<Backing, Invalid> {
    let invalid = || Invalid::new("backing", "must be \"managed\" or {\"dataSource\": ID}");
    match backing {
        Value::String(word) if word == "managed" => Ok(Backing::Managed),
        Value::Object(named) if named.len() == 1 => match named.get("dataSource") {
            Some(Value::String(id)) if text::is_printable(id) => Ok(Backing::Source(id.clone())),
            _ => Err(invalid()),
        },
        _ => Err(invalid()),
    }
}

fn groups(templates: &Value, model: &Model) -> Result<Vec<Template>, Invalid> {
    let Value::Array(templates) = templates else {
        return Err(Invalid::new("", "must be an array of strings"));
    };
    if templates.len() > MAX_TEMPLATES {
        return Err(Invalid::new("", format!("must be at most {MAX_TEMPLATES}")));
    }
    let template = |(index, template): (usize, &Value)| {
        let at = |rule: &str| Invalid::new(format!("[{index}]"), rule);
        let text = template.as_str().ok_or_else(|| at("must be a string"))?;
        let template = Template::parse(text).map_err(at)?;
        if let Some(field) = template.fields().find(|field| !model.has_field(field)) {
            return Err(at(&format!(
                "names {}, which is not a field",
                text::quoted(field)
            )));
        }
        Ok(template)
    };
    templates.iter().enumerate().map(template).collect()
}

fn object<'a>(value: &'a Value, path: &str) -> Result<&'a Map<String, Value>, Invalid> {
    value
        .as_object()
        .ok_or_else(|| Invalid::new(path, "must be an object"))
}

fn known_keys(object: &Map<String, Value>, known: &[&str]) -> Result<(), Invalid> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(unknown) => {
            let rule = format!("has the unknown key {}", text::quoted(unknown));
            Err(Invalid::new("", rule))
        }
    }
}

#[cfg(test)]
mod tests;
