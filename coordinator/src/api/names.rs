//! Names of things on the wire: `dataSources/{id}`, `organizations/{id}/apiKeys/{id}`.

use uuid::Uuid;

use crate::domain::OrganizationId;
use crate::refusal::Refusal;

/// The longest text for a person that an operator gives.
const LONGEST_DISPLAY_NAME: usize = 255;

pub(super) fn source(id: &str) -> String {
    format!("dataSources/{id}")
}

pub(super) fn organization(id: &OrganizationId) -> String {
    format!("organizations/{id}")
}

pub(super) fn api_key(organization: &OrganizationId, key: Uuid) -> String {
    format!("organizations/{organization}/apiKeys/{key}")
}

/// The id in `dataSources/{id}`.
pub(super) fn parse_source(field: &str, name: &str) -> Result<String, Refusal> {
    let id = name.strip_prefix("dataSources/").filter(|id| is_id(id));
    id.map(str::to_owned)
        .ok_or_else(|| malformed(field, "dataSources/{id}"))
}

/// The id in `organizations/{id}`.
pub(super) fn parse_organization(field: &str, name: &str) -> Result<OrganizationId, Refusal> {
    let id = name.strip_prefix("organizations/").filter(|id| is_id(id));
    id.map(OrganizationId::new)
        .ok_or_else(|| malformed(field, "organizations/{id}"))
}

/// The ids in `organizations/{organization}/apiKeys/{id}`.
pub(super) fn parse_api_key(field: &str, name: &str) -> Result<(OrganizationId, Uuid), Refusal> {
    let fault = || malformed(field, "organizations/{organization}/apiKeys/{id}");
    let (parent, key) = name.split_once("/apiKeys/").ok_or_else(fault)?;
    let organization = parse_organization(field, parent).map_err(|_| fault())?;
    Ok((organization, Uuid::parse_str(key).map_err(|_| fault())?))
}

/// An id that an operator chooses: 1 to 63 of `a-z`, `0-9`, `-` and `_`, starting with a letter.
pub(super) fn chosen_id<'a>(field: &str, id: &'a str) -> Result<&'a str, Refusal> {
    let rule = "is 1 to 63 characters of `a-z`, `0-9`, `-` and `_`, starting with a letter";
    if is_id(id) {
        Ok(id)
    } else {
        Err(Refusal::field("id_invalid", field, rule))
    }
}

/// A text for a person: at most 255 characters, none of them a control character.
pub(super) fn display_name(field: &str, text: String) -> Result<String, Refusal> {
    if text.chars().count() > LONGEST_DISPLAY_NAME {
        return Err(Refusal::field(
            "field_too_long",
            field,
            "has at most 255 characters",
        ));
    }
    printable(field, &text)?;
    Ok(text)
}

/// A text without control characters.
pub(super) fn printable(field: &str, text: &str) -> Result<(), Refusal> {
    if text.chars().any(char::is_control) {
        return Err(Refusal::field(
            "field_invalid",
            field,
            "contains no control characters",
        ));
    }
    Ok(())
}

fn is_id(id: &str) -> bool {
    (1..=63).contains(&id.len())
        && id.starts_with(|first: char| first.is_ascii_lowercase())
        && id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
}

fn malformed(field: &str, form: &str) -> Refusal {
    Refusal::field("name_invalid", field, format!("has the form `{form}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let (acme, key) = (OrganizationId::new("acme"), Uuid::from_u128(7));
        assert_eq!(parse_source("name", &source("crm")), Ok("crm".to_owned()));
        assert_eq!(
            parse_organization("name", &organization(&acme)),
            Ok(acme.clone())
        );
        assert_eq!(parse_api_key("name", &api_key(&acme, key)), Ok((acme, key)));
    }

    #[test]
    fn ids_outside_the_rule_are_refused_with_the_field() {
        let long = "a".repeat(64);
        for id in ["", "1a", "A", "a.b", "a/b", "a b", "_a", "é", "a\n", &long] {
            let refusal = chosen_id("organization_id", id).unwrap_err();
            assert_eq!(refusal.reason, "id_invalid");
            assert_eq!(refusal.violations[0].field, "organization_id");
            assert!(parse_source("name", &source(id)).is_err(), "{id}");
        }
        assert!(chosen_id("organization_id", &"a".repeat(63)).is_ok());
    }

    #[test]
    fn names_of_another_form_are_refused() {
        for name in [
            "",
            "crm",
            "dataSources/",
            "datasources/crm",
            "organizations/a/apiKeys/x",
        ] {
            assert_eq!(
                parse_source("name", name).unwrap_err().reason,
                "name_invalid"
            );
            assert_eq!(
                parse_api_key("name", name).unwrap_err().reason,
                "name_invalid"
            );
        }
    }

    #[test]
    fn texts_for_people_are_bounded_and_printable() {
        assert!(display_name("display_name", "é".repeat(255)).is_ok());
        assert!(display_name("display_name", "é".repeat(256)).is_err());
        assert!(display_name("display_name", "a\u{7}b".to_owned()).is_err());
    }
}
