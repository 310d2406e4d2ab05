//! Organizations and keys that must not be.

use proto::v1::{
    CreateApiKeyRequest, CreateOrganizationRequest, GetOrganizationRequest, ListApiKeysRequest,
    ListOrganizationsRequest, Mode, Organization, RevokeApiKeyRequest,
};
use tonic::Code;

use super::house::{House, Policy};
use super::refusal::{Refusal, field, refused};

#[tokio::test]
async fn an_organization_that_is_asked_for_badly_is_refused() {
    let house = House::open(Policy::Production).await;
    let create = async |request| house.admin().create_organization(request).await;
    house.refuses(organizations(), create).await;

    let name = || field("name_invalid", "name");
    let missing = || refused(Code::NotFound, "organization_not_found");
    let cases = vec![
        ("no name", "", name()),
        ("an id alone", "acme", name()),
        ("a name in capitals", "organizations/ACME", name()),
        ("a name with more", "organizations/acme/apiKeys/1", name()),
        (
            "SQL for a name",
            "organizations/x'; DROP TABLE heads; --",
            name(),
        ),
        ("an unknown name", "organizations/gone", missing()),
    ];
    let get = async |name: &str| {
        let name = name.to_owned();
        house
            .admin()
            .get_organization(GetOrganizationRequest { name })
            .await
    };
    house.refuses(cases, get).await;

    let page = |page_size, page_token: &str| ListOrganizationsRequest {
        page_size,
        page_token: page_token.to_owned(),
    };
    let cases = vec![
        (
            "a negative page",
            page(i32::MIN, ""),
            field("page_size_invalid", "page_size"),
        ),
        (
            "a token of nobody's",
            page(1, "é"),
            field("page_token_invalid", "page_token"),
        ),
    ];
    let list = async |request| house.admin().list_organizations(request).await;
    house.refuses(cases, list).await;
    house.close().await;
}

#[tokio::test]
async fn a_key_that_is_asked_for_badly_is_refused() {
    let house = House::open(Policy::Production).await;
    for _ in 0..4 {
        house.key_of("acme").await;
    }
    let make = async |request| house.admin().create_api_key(request).await;
    house.refuses(keys(), make).await;

    let unknown = "00000000-0000-4000-8000-000000000000";
    let name = || field("name_invalid", "name");
    let missing = || refused(Code::NotFound, "api_key_not_found");
    let cases = vec![
        ("no name", String::new(), name()),
        (
            "a key without an organization",
            format!("apiKeys/{unknown}"),
            name(),
        ),
        (
            "an id that is none",
            "organizations/acme/apiKeys/1".to_owned(),
            name(),
        ),
        (
            "an unknown key",
            format!("organizations/acme/apiKeys/{unknown}"),
            missing(),
        ),
        (
            "another organization's key",
            house
                .key_of("rival")
                .await
                .api_key
                .unwrap()
                .name
                .replace("rival", "acme"),
            missing(),
        ),
    ];
    let revoke = async |name| {
        house
            .admin()
            .revoke_api_key(RevokeApiKeyRequest { name })
            .await
    };
    house.refuses(cases, revoke).await;

    let page = |parent: &str, page_token: &str| ListApiKeysRequest {
        parent: parent.to_owned(),
        page_size: 1,
        page_token: page_token.to_owned(),
    };
    let list = async |request| house.admin().list_api_keys(request).await;
    let token = list(page("organizations/acme", ""))
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    let invalid = || field("page_token_invalid", "page_token");
    let cases = vec![
        (
            "an unknown organization",
            page("organizations/gone", ""),
            refused(Code::NotFound, "organization_not_found"),
        ),
        (
            "another organization's token",
            page("organizations/rival", &token),
            invalid(),
        ),
    ];
    house.refuses(cases, list).await;
    house.close().await;
}

fn organizations() -> Vec<(&'static str, CreateOrganizationRequest, Refusal)> {
    let of = |id: &str, mode: i32, display_name: &str| CreateOrganizationRequest {
        organization_id: id.to_owned(),
        organization: Some(Organization {
            display_name: display_name.to_owned(),
            mode,
            ..Organization::default()
        }),
    };
    let named = |id: &str| of(id, Mode::Test.into(), "");
    let shown = |text: &str| of("new", Mode::Test.into(), text);
    let absent = CreateOrganizationRequest {
        organization: None,
        ..named("new")
    };
    let id = || field("id_invalid", "organization_id");
    let mode = || field("field_required", "organization.mode");
    let shows = |reason| field(reason, "organization.display_name");
    vec![
        ("no id", named(""), id()),
        ("capitals", named("Acme"), id()),
        ("a digit first", named("1acme"), id()),
        ("64 characters", named(&"a".repeat(64)), id()),
        ("a slash", named("a/b"), id()),
        ("a dot", named("a.b"), id()),
        ("a look-alike", named("\u{430}cme"), id()),
        ("U+0000", named("a\0"), id()),
        ("no mode", of("new", 0, ""), mode()),
        ("an unknown mode", of("new", 9, ""), mode()),
        ("nothing but an id", absent, mode()),
        (
            "a long text",
            shown(&"é".repeat(256)),
            shows("field_too_long"),
        ),
        (
            "a text with a bell",
            shown("a\u{7}"),
            shows("field_invalid"),
        ),
        ("U+0000 in the text", shown("a\0"), shows("field_invalid")),
        (
            "one that exists",
            named("acme"),
            refused(Code::AlreadyExists, "organization_exists"),
        ),
    ]
}

fn keys() -> Vec<(&'static str, CreateApiKeyRequest, Refusal)> {
    let of = |parent: &str, display_name: &str| CreateApiKeyRequest {
        parent: parent.to_owned(),
        display_name: display_name.to_owned(),
    };
    let parent = || field("name_invalid", "parent");
    let long = "a".repeat(256);
    vec![
        ("no organization", of("", ""), parent()),
        ("an id alone", of("acme", ""), parent()),
        (
            "an unknown organization",
            of("organizations/gone", ""),
            refused(Code::NotFound, "organization_not_found"),
        ),
        (
            "a long text",
            of("organizations/rival", &long),
            field("field_too_long", "display_name"),
        ),
        (
            "U+0000 in the text",
            of("organizations/rival", "\0"),
            field("field_invalid", "display_name"),
        ),
        (
            "a sixth key",
            of("organizations/acme", ""),
            refused(Code::FailedPrecondition, "too_many_keys"),
        ),
    ]
}
