//! The examples of customers' endpoints do what a Data Source must, and what does not is caught.

mod example;
mod proxy;

use std::os::unix::process::CommandExt;
use std::process::Command;

use coordinator::config::Secret;
use coordinator::conformance::{self, CheckReport, Target, Verdict, WriteOutside};
use futures_util::FutureExt;
use integration::endpoint::Endpoint;
use integration::postgres::TestDatabase;

use self::example::{Example, KEY};
use self::proxy::{Fault, Proxy};

/// The latitude has more digits than a double.
const ROW: &str = r#"{"name": "Thigpen", "city": "Bay Springs", "state": "MS", "country": "USA",
    "latitude": 31.953764720000000000010, "longitude": -89.23450472}"#;

/// Faults that an example has from its database, and the checks that must fail.
const STORED_FAULTS: [(&str, &[&str]); 5] = [
    // The ledger forgets: each commit goes in under a name that nobody asks for.
    (
        "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             NEW.client_tx_id := gen_random_uuid();
             RETURN NEW;
         END $$;
         CREATE TRIGGER forget BEFORE INSERT ON coordinator_commits
             FOR EACH ROW EXECUTE FUNCTION forget()",
        &[
            "a commit that is sent again gets its first answer",
            "a commit that is sent again does not take effect again",
            "another intent under a used id is refused with a code",
            "copies of a commit that arrive together take effect once",
        ],
    ),
    (
        "ALTER TABLE airports ALTER latitude TYPE double precision",
        &["numbers keep every digit"],
    ),
    (
        "ALTER TABLE airports ALTER city TYPE varchar(20) USING left(city, 20)",
        &["text keeps every character"],
    ),
    // The feed does not say who made a change.
    (
        "CREATE FUNCTION unname() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             NEW.client_tx_id := NULL;
             RETURN NEW;
         END $$;
         CREATE TRIGGER unname BEFORE INSERT ON outbox
             FOR EACH ROW EXECUTE FUNCTION unname()",
        &["the feed names the commit that made a change"],
    ),
    (
        "DROP TRIGGER publish ON airports",
        &[
            "the feed names the commit that made a change",
            "an event that is read again has the same id",
            "the feed goes on from its cursor and repeats nothing",
            "a change that was made past the coordinator is in the feed",
        ],
    ),
];

/// Faults that an example has from what stands before it, and the checks that must fail.
const SERVED_FAULTS: [(Fault, &[&str]); 8] = [
    (
        Fault::TrustsEveryone,
        &[
            "a commit that is signed with another key is refused and changes nothing",
            "a commit that was signed ten minutes ago is refused and changes nothing",
            "a commit that is signed ten minutes ahead is refused and changes nothing",
        ],
    ),
    (
        Fault::ReadsOneSignature,
        &["one right signature among several is enough"],
    ),
    (
        Fault::AppliesPiecemeal,
        &["a commit with one operation that fails applies none of them"],
    ),
    (
        Fault::RefusesByException,
        &[
            "a CREATE of a row that exists is refused with a code and leaves the row as it is",
            "an UPDATE of a row that is missing is refused with a code and invents nothing",
            "another intent under a used id is refused with a code",
            "a commit on an unknown model is refused with a code",
        ],
    ),
    (
        Fault::ListsAnything,
        &[
            "list answers the rows that meet every condition",
            "list answers in the order that is asked for",
            "list answers pages that together have every row once",
        ],
    ),
    (Fault::TakesSmallBodies, &["a body of 4 MiB is taken"]),
    (
        Fault::RenamesEvents,
        &["an event that is read again has the same id"],
    ),
    (
        Fault::MissingIsAnError,
        &["load answers the row, or null when there is none"],
    ),
];

fn target(url: &str, write_outside: Option<WriteOutside>) -> Target {
    Target {
        url: url.to_owned(),
        key: Secret::new(KEY),
        model: "airports".to_owned(),
        rows: vec![serde_json::from_str(ROW).unwrap()],
        write_outside,
    }
}

async fn check(url: &str, database: &TestDatabase) -> Vec<CheckReport> {
    let pool = database.pool(1);
    let write_outside: WriteOutside = Box::new(move |id| {
        let pool = pool.clone();
        async move {
            sqlx::query("UPDATE airports SET city = 'Elsewhere' WHERE id = $1")
                .bind(id)
                .execute(&pool)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        }
        .boxed()
    });
    conformance::run(target(url, Some(write_outside)))
        .await
        .unwrap()
}

async fn assert_conforms(example: &Example, database: &TestDatabase) {
    let reports = check(&example.url(), database).await;
    let others: Vec<_> = reports
        .iter()
        .filter(|report| report.verdict != Verdict::Passed)
        .collect();
    assert!(others.is_empty(), "{others:#?}\n{}", example.log());
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM airports")
        .fetch_one(&database.pool(1))
        .await
        .unwrap();
    assert_eq!(left, 0, "the checks remove their rows");
}

fn failed(reports: &[CheckReport]) -> Vec<&str> {
    let failed = |report: &&CheckReport| matches!(report.verdict, Verdict::Failed { .. });
    reports
        .iter()
        .filter(failed)
        .map(|report| report.name)
        .collect()
}

#[tokio::test]
async fn the_example_in_rust_conforms() {
    let database = TestDatabase::empty().await;
    let example = Example::rust(&database.url());
    assert_conforms(&example, &database).await;
    example.stop();
}

#[tokio::test]
async fn the_example_in_typescript_conforms() {
    let database = TestDatabase::empty().await;
    let example = Example::typescript(&database.url());
    assert_conforms(&example, &database).await;
    example.stop();
}

#[tokio::test]
async fn the_example_in_python_conforms() {
    let database = TestDatabase::empty().await;
    let example = Example::python(&database.url());
    assert_conforms(&example, &database).await;
    example.stop();
}

#[tokio::test]
async fn a_fault_is_caught_by_the_checks_of_it_alone() {
    for (fault, expected) in STORED_FAULTS {
        let database = TestDatabase::empty().await;
        let example = Example::rust(&database.url());
        sqlx::raw_sql(fault)
            .execute(&database.pool(1))
            .await
            .unwrap();
        let reports = check(&example.url(), &database).await;
        assert_eq!(failed(&reports), *expected, "{fault}: {reports:#?}");
        example.stop();
    }
}

#[tokio::test]
async fn a_fault_of_what_stands_before_an_endpoint_is_caught_as_well() {
    for (fault, expected) in SERVED_FAULTS {
        let database = TestDatabase::empty().await;
        let example = Example::rust(&database.url());
        let proxy = Proxy::start(fault, &example.url()).await;
        let reports = check(&proxy.url, &database).await;
        assert_eq!(failed(&reports), *expected, "{fault:?}: {reports:#?}");
        example.stop();
    }
}

/// The scripted endpoint answers a used id as it did at first, whatever the intent, knows every
/// model, and has no place in its feed for what the coordinator wrote.
#[tokio::test]
async fn the_command_says_what_to_mend_and_ends_with_one() {
    let endpoint = Endpoint::start(KEY).await.unwrap();
    let url = endpoint.url();
    let command = |extra: &'static [&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command
            .arg0("coordinator")
            .args(["source", "conformance", &url, "--model", "airports"])
            .args(["--row", ROW, "--key", KEY])
            .args(extra);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let people = command(&[]).await.unwrap();
    assert_eq!(people.status.code(), Some(1), "{people:?}");
    let text = String::from_utf8(people.stdout).unwrap();
    let told = "failed: another intent under a used id is refused with a code\n  \
                seen: the endpoint answered 200, as to the first intent\n  \
                mend: store intentHash with the clientTxId";
    assert!(text.contains(told), "{text}");
    assert!(text.contains("skipped: a change that was made past the coordinator"));

    let programs = command(&["--json"]).await.unwrap();
    assert_eq!(programs.status.code(), Some(1));
    let text = String::from_utf8(programs.stdout).unwrap();
    let outcome = |line: &str| {
        let report: serde_json::Value = serde_json::from_str(line).unwrap();
        report["outcome"].as_str().unwrap().to_owned()
    };
    let outcomes: Vec<_> = text.lines().map(outcome).collect();
    assert!(outcomes.iter().any(|it| it == "passed"));
    assert!(outcomes.iter().any(|it| it == "failed"));
}

/// They are there to be copied one by one, so each has the tables; they must not drift apart.
#[test]
fn the_examples_have_the_same_tables() {
    let rust = include_str!("../../src/customer/tables.sql");
    assert_eq!(rust, include_str!("../../examples/typescript/tables.sql"));
    assert_eq!(rust, include_str!("../../examples/python/tables.sql"));
}
