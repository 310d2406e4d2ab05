//! Clocks that do not agree.

use std::time::Duration;

use backends::data_source::clock::{Clock, SystemClock};
use integration::app::{Flags, TestApp, eventually, intent};
use integration::endpoint::Endpoint;
use integration::postgres::TestDatabase;
use serde_json::json;
use sqlx::Executor;

use crate::command::EXECUTABLE;

/// The clock of the database, ten minutes ahead, for whoever looks here first.
const AHEAD: &str = "
CREATE SCHEMA ahead;
CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS $$ SELECT pg_catalog.clock_timestamp() + interval '10 minutes' $$;
CREATE FUNCTION ahead.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$ SELECT pg_catalog.now() + interval '10 minutes' $$";

#[tokio::test]
async fn state_goes_by_the_databases_clock_and_a_machines_that_is_off_is_warned_of() {
    let database = TestDatabase::migrated().await;
    database
        .pool(1)
        .execute(sqlx::raw_sql(AHEAD))
        .await
        .unwrap();
    let url = format!(
        "{}&options=-csearch_path%3Dahead,public,pg_catalog",
        database.url()
    );
    let app = TestApp::over(url, database.connect_options(), Flags::default());
    let node = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = integration::app::Tenant::create(node.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    tenant
        .prepare(&integration::app::Source::at(&endpoint))
        .await;
    let create = intent::create("airports", "a", &json!({}));
    let receipt = tenant.confirm(intent::commit("late", vec![create])).await;
    let accepted = u64::try_from(receipt.accept_time.unwrap().seconds).unwrap();
    let ahead = std::time::UNIX_EPOCH + Duration::from_secs(accepted);
    let ahead = ahead.duration_since(SystemClock.now()).unwrap();
    assert!(ahead > Duration::from_mins(9), "{ahead:?}");
    // The request was signed by the machine's clock, which the endpoint shares.
    assert_eq!(endpoint.executions().len(), 1);
    let words = "the database's clock is 10 min ahead of this machine's";
    eventually("the warning", async || {
        node.log().contains(words).then_some(())
    })
    .await;
}
