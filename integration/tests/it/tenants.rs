//! Every call there is, made by a second organization with the first one's names and ids in its
//! mouth: it meets its own world, and no word of the first one's.

#![expect(clippy::too_many_lines, reason = "tables of cases are long")]

mod calls;
mod furnished;
mod verbatim;

use std::collections::BTreeSet;

use integration::app::{TestApp, reason};
use prost::Message;
use prost_types::FileDescriptorSet;
use sqlx::{AssertSqlSafe, PgPool};

use self::calls::{Call, calls};
use self::furnished::Furnished;
use self::verbatim::{Heard, ask};

/// Names of all calls, `Service/Method`, as the service describes itself.
fn described() -> BTreeSet<String> {
    let described = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let ours = described
        .file
        .iter()
        .filter(|it| it.package() == "ablo.coordinator.v1");
    let services = ours.flat_map(|it| &it.service);
    services
        .flat_map(|service| {
            let methods = service.method.iter();
            methods.map(|method| format!("{}/{}", service.name(), method.name()))
        })
        .collect()
}

/// All that the tables hold of an organization, but what its source's requests tell as time goes by.
async fn contents_of(pool: &PgPool, organization: &str) -> Vec<(String, Option<String>)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
             AND NOT c.relispartition AND a.attname = 'org_id'
             AND c.relname <> 'source_requests' ORDER BY 1",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(tables.len() > 15, "{tables:?}");
    let mut contents = Vec::new();
    for table in tables {
        let rows = format!(
            "SELECT string_agg(t::text, '|' ORDER BY t::text) FROM {table} t WHERE org_id = $1"
        );
        let rows = sqlx::query_scalar(AssertSqlSafe(rows)).bind(organization);
        contents.push((table, rows.fetch_one(pool).await.unwrap()));
    }
    contents
}

/// What came of a call: `ok`, or the reason of its refusal.
fn outcome(heard: &Heard) -> String {
    heard.end.as_ref().err().map_or("ok".to_owned(), reason)
}

/// Texts that an answer tells although they were not in the question.
fn told<'a>(texts: &'a [String], call: &Call, heard: &Heard) -> Vec<&'a String> {
    let contains =
        |bytes: &[u8], text: &String| bytes.windows(text.len()).any(|it| it == text.as_bytes());
    texts
        .iter()
        .filter(|text| contains(&heard.bytes, text) && !contains(&call.message, text))
        .collect()
}

/// Makes every call and says what is wrong with what came of it.
async fn faults(
    address: &str,
    key: &str,
    texts: &[String],
    calls: &[Call],
    twin: bool,
) -> Vec<String> {
    let mut faults = Vec::new();
    for call in calls {
        let heard = ask(address, key, call.method, call.message.clone()).await;
        let leaked = told(texts, call, &heard);
        if !leaked.is_empty() {
            faults.push(format!("{} tells {leaked:?}: {heard:?}", call.method));
        }
        let expected = if twin { call.twin } else { call.empty };
        let outcome = outcome(&heard);
        if outcome != expected {
            faults.push(format!("{} came to {outcome}, not {expected}", call.method));
        }
    }
    faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_call_names_what_another_organization_has_it_meets_its_own_world() {
    let app = TestApp::start().await;
    let acme = Furnished::acme(&app).await;
    let calls = calls(&acme);
    let named = calls.iter().map(|it| it.method.to_owned());
    assert_eq!(
        named.collect::<BTreeSet<_>>(),
        described(),
        "every call has a case"
    );

    let empty = app.organization("empty").await;
    let twin = Furnished::twin(&app).await;
    let before = contents_of(&app.pool(), "acme").await;
    let arrived = acme.endpoint.arrivals().len();

    // One that has nothing is not even told names that it did not say itself; one that has things
    // of the same names is shown its own.
    let everything = [&acme.secrets[..], &acme.names].concat();
    let address = app.address();
    let (empty_told, twin_told) = tokio::join!(
        faults(&address, empty.key(), &everything, &calls, false),
        faults(&address, twin.tenant.key(), &acme.secrets, &calls, true),
    );
    let wrong = [empty_told, twin_told].concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    assert_eq!(
        acme.endpoint.arrivals().len(),
        arrived,
        "acme's endpoint is asked nothing"
    );
    // The look-out finds what is there for who may see it.
    let mut seen = BTreeSet::new();
    for call in calls.iter().filter(|it| it.reads) {
        let heard = ask(
            &app.address(),
            acme.tenant.key(),
            call.method,
            call.message.clone(),
        )
        .await;
        seen.extend(told(&acme.secrets, call, &heard));
    }
    let unseen: Vec<_> = acme
        .secrets
        .iter()
        .filter(|it| !seen.contains(it))
        .collect();
    assert_eq!(
        unseen,
        acme.unseen().iter().collect::<Vec<_>>(),
        "seen: {seen:?}"
    );

    assert_eq!(contents_of(&app.pool(), "acme").await, before);
    let scopes = twin.endpoint.arrivals().into_iter();
    assert!(
        scopes
            .into_iter()
            .all(|it| it.body["scope"]["organizationId"] == "twin")
    );
    app.leaves_pending("acme's dead commits stay as they are");
}
