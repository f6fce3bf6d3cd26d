//! Data tables and secrets, as the provider keeps them.

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::{ask, key_for, refused, text};

async fn table(fixture: &Fixture, name: &str) -> String {
    let body = json!({"projectId": fixture.project, "name": name});
    let made = ask(fixture, "/provider/datatables/create", body).await;
    text(&made["dataTable"]["id"])
}

#[async_std::test]
async fn a_data_table_has_columns_and_is_attached_to_flows() {
    let fixture = Fixture::start().await;
    let (people, orders) = (
        table(&fixture, "people").await,
        table(&fixture, "orders").await,
    );
    let rename = json!({"id": orders, "name": "purchases"});
    let renamed = ask(&fixture, "/provider/datatables/update", rename).await;
    let shown = json!({"id": orders, "name": "purchases"});
    assert_eq!(renamed, json!({"dataTable": shown}));
    let path = "/provider/datatables/create_datatable_column";
    let mut columns = Vec::new();
    for kind in ["boolean", "datetime", "float", "integer", "json", "string"] {
        let body = json!({"dataTableId": people, "name": kind, "type": kind});
        let made = ask(&fixture, path, body).await;
        columns.push(text(&made["column"]["id"]));
    }
    let body =
        json!({"dataTableId": orders, "name": "who", "type": "row_ref", "refTableId": people});
    let who = text(&ask(&fixture, path, body).await["column"]["id"]);
    let path = "/provider/datatables/get_datatable_column";
    let shown = json!({"id": who, "name": "who", "type": "row_ref", "refTableId": people});
    let column = ask(&fixture, path, json!({"id": who})).await;
    assert_eq!(column, json!({"column": shown}));
    let rename = json!({"id": columns[5], "name": "name"});
    ask(
        &fixture,
        "/provider/datatables/update_datatable_column",
        rename,
    )
    .await;
    let column = ask(&fixture, path, json!({"id": columns[5]})).await;
    let shown = json!({"id": columns[5], "name": "name", "type": "string"});
    assert_eq!(column, json!({"column": shown}));
    attachments(&fixture, &people).await;
    let fixture = fixture.restart().await;
    // What others refer to stays until they are gone.
    let delete = "/provider/datatables/delete";
    let error = refused(&fixture, delete, json!({"id": people})).await;
    assert!(error.contains("refers to this one"), "{error}");
    let remove = "/provider/datatables/delete_datatable_column";
    assert_eq!(ask(&fixture, remove, json!({"id": who})).await, json!({}));
    assert_eq!(
        ask(&fixture, delete, json!({"id": people})).await,
        json!({})
    );
    for (path, id) in [
        ("get", &people),
        ("delete", &people),
        ("get_datatable_column", &columns[0]),
        ("get_datatable_column", &who),
        ("delete_datatable_column", &who),
    ] {
        let path = format!("/provider/datatables/{path}");
        assert_eq!(
            refused(&fixture, &path, json!({"id": id})).await,
            "not found"
        );
    }
    assert_eq!(fixture.stop().await, 0);
}

async fn attachments(fixture: &Fixture, table: &str) {
    let body = json!({"projectId": fixture.project, "name": "f"});
    let flow = text(&ask(fixture, "/provider/flows/create", body).await["flow"]["id"]);
    let attachment = json!({"dataTableId": table, "flowId": flow});
    let flows = async || {
        let shown = ask(fixture, "/provider/datatables/get", json!({"id": table})).await;
        shown["dataTable"]["flows"].clone()
    };
    let (attach, detach) = (
        "/provider/datatables/attach_to_flow",
        "/provider/datatables/detach_from_flow",
    );
    for _ in 0..2 {
        ask(fixture, attach, attachment.clone()).await;
        assert_eq!(flows().await, json!([flow]));
    }
    for _ in 0..2 {
        ask(fixture, detach, attachment.clone()).await;
        assert_eq!(flows().await, json!([]));
    }
    ask(fixture, attach, attachment).await;
    ask(fixture, "/provider/flows/delete", json!({"id": flow})).await;
    assert_eq!(flows().await, json!([]), "it goes with the flow");
}

#[async_std::test]
async fn what_does_not_fit_is_refused() {
    let fixture = Fixture::start().await;
    let one = table(&fixture, "one").await;
    let other = fixture
        .post("/api/v1/projects", &json!({"name": "other"}))
        .await;
    let foreign = json!({"projectId": other["id"], "name": "foreign"});
    let foreign = ask(&fixture, "/provider/datatables/create", foreign).await;
    let foreign = text(&foreign["dataTable"]["id"]);
    let column = |name: &str, kind: &str, table: Value| json!({"dataTableId": one, "name": name, "type": kind, "refTableId": table});
    let make = "create_datatable_column";
    let path = format!("/provider/datatables/{make}");
    ask(&fixture, &path, column("taken", "string", Value::Null)).await;
    for (path, body, words) in [
        (
            "create",
            json!({"projectId": fixture.project, "name": "one"}),
            "`one` exists",
        ),
        (
            "create",
            json!({"projectId": "x", "name": "one"}),
            "does not exist",
        ),
        (
            make,
            column("taken", "string", Value::Null),
            "`taken` exists",
        ),
        (make, column("c", "text", Value::Null), "say one of boolean"),
        (
            make,
            column("c", "row_ref", Value::Null),
            "`refTableId` is missing",
        ),
        (
            make,
            column("c", "string", json!(one)),
            "belongs to columns",
        ),
        (
            make,
            column("c", "row_ref", json!(foreign)),
            "no data table of this project",
        ),
        (make, column("", "string", Value::Null), "`name`"),
        (
            "attach_to_flow",
            json!({"dataTableId": one, "flowId": "x"}),
            "not found",
        ),
    ] {
        let error = refused(&fixture, &format!("/provider/datatables/{path}"), body).await;
        assert!(error.contains(words), "{path}: {error}");
    }
    // A key of another project does not see it.
    let key = key_for(&fixture, &[&text(&other["id"])]).await;
    let body = json!({"id": one}).to_string();
    let path = "/provider/datatables/get";
    let (status, reply) = fixture.call_as(&key, "POST", path, body.as_bytes()).await;
    assert_eq!((status, &reply["error"]), (404, &json!("not found")));
    assert_eq!(fixture.stop().await, 0);
}

#[async_std::test]
async fn a_secret_is_written_and_never_told() {
    let fixture = Fixture::start().await;
    let secret = |value: Option<&str>| {
        let mut body = json!({"projectId": fixture.project, "key": "TOKEN"});
        if let Some(value) = value {
            body["value"] = json!(value);
        }
        body
    };
    let path = |what: &str| format!("/provider/organization/{what}_secret");
    let error = refused(&fixture, &path("update"), secret(Some("early"))).await;
    assert_eq!(error, "not found");
    for (what, value) in [
        ("create", Some("hidden-one")),
        ("read", None),
        ("update", Some("hidden-two")),
        ("read", None),
    ] {
        let told = ask(&fixture, &path(what), secret(value)).await;
        assert!(!told.to_string().contains("hidden"), "{told}");
        assert_eq!(told["secret"]["key"], "TOKEN");
        let at = text(&told["secret"]["updatedAt"]);
        assert!(at.parse::<jiff::Timestamp>().is_ok(), "{at}");
    }
    let error = refused(&fixture, &path("create"), secret(Some("again"))).await;
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(
        ask(&fixture, &path("delete"), secret(None)).await,
        json!({})
    );
    for what in ["read", "delete"] {
        let error = refused(&fixture, &path(what), secret(None)).await;
        assert_eq!(error, "not found");
    }
    assert_eq!(fixture.stop().await, 0);
}
