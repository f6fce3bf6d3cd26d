//! A database app against a real PostgreSQL server.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::database::{Database, PASSWORD, PORT, USER};
use crate::flow::{Flow, bodies};
use crate::house::{House, mirror};

const BLOCKS: &str = r#"
- name: Insert
  type: {appBlock: {block: bulkInsert, appInstallation: app}}
  inputs:
    default:
      config:
        table: people
        columns: [id, name, born]
        rows: !expr "Array.from({length: 250}, (_, n) => [n, n % 2 ? 'Ada ' + n : null, '1815-12-10'])"
- name: Read
  type: {appBlock: {block: streamQuery, appInstallation: app}}
  inputs:
    default:
      links: [{block: Insert, output: default}]
      config: {sql: !expr "`SELECT id, name FROM ${outputs.insert.table} ORDER BY id`", batchSize: 100}
- name: Count
  type: {appBlock: {block: query, appInstallation: app}}
  inputs:
    default:
      links: [{block: Read, output: batch}]
      config:
        sql: SELECT count(*)::int AS named FROM people WHERE name IS NOT NULL AND id = ANY($1)
        parameters: !expr '[outputs.read.rows.map((row) => row.id)]'
- name: Who
  type: {appBlock: {block: query, appInstallation: app}}
  inputs: {default: {config: {sql: SELECT pg_backend_pid() AS pid}}}
- name: Wrong
  type: {appBlock: {block: query, appInstallation: app}}
  inputs: {default: {config: {sql: SELECT nothing FROM nowhere}}}"#;

fn config(password: &str) -> Value {
    json!({
        "host": format!("'{}'", mirror()), "port": PORT.to_string(),
        "user": format!("'{USER}'"), "password": format!("'{password}'"),
    })
}

#[async_std::test]
async fn a_database_is_reached_by_a_pool_that_outlives_invocations() {
    let house = House::enter().await;
    let database = Database::start().await;
    database.sql("CREATE TABLE people (id int PRIMARY KEY, name text, born date)");

    // Another password than the server's: the app says so and is not ready.
    let app = house
        .draft("postgresql", "database", config("a-wrong-password"))
        .await;
    app.confirm().await;
    let failed = app.status("failed").await;
    let text = failed["status_text"].as_str().expect("a text");
    assert!(text.starts_with("Cannot connect: password"), "{text}");
    app.configure(json!({"password": format!("'{PASSWORD}'")}))
        .await;
    let ready = app.status("ready").await;
    let version = ready["signals"]["version"].as_str().expect("a version");
    assert!(database.sql("SHOW server_version").starts_with(version));

    let flow = app.flow(BLOCKS).await;
    flow.trigger("Insert", "default", json!({})).await;
    let events = flow.quiet().await;
    let inserted = flow.of(events.clone(), "Insert", "default");
    assert_eq!(
        bodies(&inserted),
        [json!({"table": "people", "rowCount": 250})]
    );
    assert_eq!(
        database.sql("SELECT count(*), count(name) FROM people"),
        "250|125"
    );
    let batches = flow.of(events.clone(), "Read", "batch");
    let sizes = batches
        .iter()
        .map(|batch| batch["body"]["rows"].as_array().map(Vec::len));
    assert_eq!(sizes.collect::<Vec<_>>(), [Some(100), Some(100), Some(50)]);
    assert_eq!(
        batches[2]["body"]["rows"][49],
        json!({"id": 249, "name": "Ada 249"})
    );
    let complete = flow.of(events.clone(), "Read", "complete");
    assert_eq!(bodies(&complete), [json!({"rows": 250, "batches": 3})]);
    let counts = flow.of(events, "Count", "default");
    let named = counts
        .iter()
        .map(|count| count["body"]["rows"][0]["named"].as_i64());
    let mut named: Vec<_> = named.collect();
    named.sort_unstable();
    assert_eq!(named, [Some(25), Some(50), Some(50)]);
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'look-alike'";
    let connections: u32 = database.sql(connected).parse().expect("a number");
    assert!((1..=8).contains(&connections), "{connections} connections");
    connections_outlive_invocations(&flow).await;

    // The same rows again: nothing is inserted, and the failure can be seen.
    let event = flow.trigger("Insert", "default", json!({})).await;
    let failed = flow.delivered(&event).await;
    let error = failed["error"].as_str().expect("an error");
    assert!(error.contains("people_pkey"), "{error}");
    let event = flow.trigger("Wrong", "default", json!({})).await;
    let error = flow.delivered(&event).await["error"].clone();
    assert_eq!(error, "error: relation \"nowhere\" does not exist");
    assert_eq!(database.sql("SELECT count(*) FROM people"), "250");
}

/// Each worker has one process of the app, with one pool for each config it has
/// seen; whoever asks next gets a connection that is open already.
async fn connections_outlive_invocations(flow: &Flow) {
    const ASKED: usize = 6;
    for count in 1..=ASKED {
        flow.trigger("Who", "default", json!({})).await;
        flow.emitted("Who", "default", count).await;
    }
    let answers = bodies(&flow.emitted("Who", "default", ASKED).await);
    assert!(
        answers.iter().all(|body| body["pools"].as_u64() <= Some(2)),
        "{answers:#?}"
    );
    let pids = answers.iter().map(|body| body["rows"][0]["pid"].as_i64());
    let pids: BTreeSet<_> = pids.collect();
    assert!(pids.len() < ASKED, "a connection for each: {pids:?}");
}
