//! Tests of constants, references and scopes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
use serde_json::{Map, Value, json};

use super::{
    Error, Expression, References, Surroundings, Values, bytes_of, divide, references, scope,
};

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn outputs(source: &str) -> Vec<String> {
    references(source).outputs.into_iter().collect()
}

fn signals(source: &str) -> Vec<String> {
    let found = references(source).signals.into_iter();
    found
        .map(|(owner, signal)| format!("{owner}:{}", signal.unwrap_or_default()))
        .collect()
}

#[test]
fn literals_never_go_to_a_runtime() {
    for (source, value) in [
        ("\"example-value\"", json!("example-value")),
        (" 42 ", json!(42)),
        ("-1.5e3", json!(-1500.0)),
        ("true", json!(true)),
        ("null", json!(null)),
        ("{\"a\": [1, {}]}", json!({"a": [1, {}]})),
        ("'CREATE TABLE x'", json!("CREATE TABLE x")),
        ("`plain`", json!("plain")),
    ] {
        assert_eq!(
            Expression::from_source(source),
            Expression::Constant(value),
            "{source}"
        );
    }
    for source in [
        "outputs.a",
        "'it\\'s'",
        "'a' + 'b'",
        "`a ${1}`",
        "{a: 1}",
        "1 + 1",
        "nothing",
        "",
        "NaN",
        "{\"__proto__\": 1}",
        "(1)",
    ] {
        let expression = Expression::from_source(source);
        assert_eq!(expression, Expression::Source(source.to_owned()));
    }
}

#[test]
fn references_are_found_in_every_way_they_are_written() {
    assert_eq!(
        outputs("outputs.a.b + outputs?.c + outputs['d'].e + outputs?.[\"f\"]"),
        ["a", "c", "d", "f"]
    );
    assert_eq!(
        outputs("`x ${outputs.a} y ${ {k: outputs.b} } z` + {...outputs.c}.d"),
        ["a", "b", "c"]
    );
    assert_eq!(
        outputs("(() => { const x = outputs.a; return x / outputs.b / 2 })()"),
        ["a", "b"]
    );
    assert_eq!(outputs("cond ? outputs : 1"), [""; 0]);
    assert!(references("cond ? outputs : 1").all_outputs);
    assert!(references("outputs[name]").all_outputs);
    assert_eq!(
        signals("signals.cicd.lastDeployment"),
        ["cicd:lastDeployment"]
    );
    assert_eq!(
        signals("ref(\"signal.getStockPrice.definition\")"),
        ["getStockPrice:definition"]
    );
    assert_eq!(
        signals("ref('signal.a.b') ?? ref(`signal.c.d`)"),
        ["a:b", "c:d"]
    );
    assert_eq!(signals("Object.keys(signals.a)"), ["a:"]);
    assert_eq!(signals("signals.a[key]"), ["a:"]);
    assert!(references("signals").all_signals);
    let dynamic = references("ref('signal.' + name)");
    assert!(dynamic.all_signals && dynamic.all_secrets && dynamic.all_outputs);
    assert_eq!(outputs("ref('output.a.b.c')"), ["a"]);
    assert_eq!(
        references("encrypt(secrets.KEY, secrets['OTHER'])").secrets,
        set(&["KEY", "OTHER"])
    );
    assert_eq!(references("ref(\"secret.KEY\")").secrets, set(&["KEY"]));
    assert_eq!(references("ref('entity.x')").unknown, set(&["entity.x"]));
}

#[test]
fn what_only_looks_like_a_reference_is_none() {
    for source in [
        "'outputs.a' + \"signals.b.c\"",
        "// outputs.a\n1 /* secrets.X */",
        "x.outputs.a",
        "x?.outputs.a",
        "({outputs: 1, signals: 2})",
        "/outputs.a[/]ref(/.test(x)",
        "`outputs.a`",
        "const outputs = {}; outputs.a",
        "outputsOfAll.a",
        "xref('signal.a.b')",
        "ref",
    ] {
        assert!(
            references(source).is_empty(),
            "{source}: {:?}",
            references(source)
        );
    }
}

#[test]
fn an_unfinished_source_is_read_as_far_as_it_goes() {
    assert_eq!(outputs("outputs.a + 'never closed"), ["a"]);
    assert_eq!(outputs("`${outputs.a"), ["a"]);
    assert_eq!(outputs("/* never closed outputs.a"), [""; 0]);
    assert_eq!(outputs("outputs.ä + '€\\"), ["ä"]);
}

#[test]
fn a_reference_that_leads_nowhere_is_named() {
    let found =
        references("outputs.later + outputs.ghost + signals.nobody.x + secrets.GONE + ref('x')");
    let (ancestors, blocks) = (set(&["before"]), set(&["before", "later"]));
    let (owners, secrets) = (set(&["before"]), set(&["KEY"]));
    let complaints = found.complaints(&Surroundings {
        ancestors: Some(&ancestors),
        blocks: Some(&blocks),
        signal_owners: Some(&owners),
        secrets: Some(&secrets),
    });
    assert_eq!(complaints.len(), 5);
    assert_eq!(
        complaints[0],
        "refers to block `ghost`, which does not exist"
    );
    assert_eq!(
        complaints[1],
        "refers to block `later`, which is no ancestor"
    );
    assert!(complaints[2].contains("signals of `nobody`"));
    assert_eq!(
        complaints[3],
        "refers to the secret `GONE`, which does not exist"
    );
    let quiet = references("outputs.before + signals.before.x + secrets.KEY");
    let around = Surroundings {
        ancestors: Some(&ancestors),
        blocks: Some(&blocks),
        signal_owners: Some(&owners),
        secrets: Some(&secrets),
    };
    assert!(quiet.complaints(&around).is_empty());
    let outside = references("outputs.before").complaints(&Surroundings::default());
    assert!(outside[0].contains("no event is handled"));
}

#[test]
fn a_config_is_divided_into_known_and_asked() {
    let config = BTreeMap::from([
        ("a".to_owned(), Expression::Constant(json!([1]))),
        ("b".to_owned(), Expression::Source("'text'".to_owned())),
        ("c".to_owned(), Expression::Source("outputs.x".to_owned())),
        ("d".to_owned(), Expression::Source("signals.y.z".to_owned())),
    ]);
    let divided = divide(&config);
    assert_eq!(
        Value::Object(divided.constants.clone()),
        json!({"a": [1], "b": "text"})
    );
    assert_eq!(divided.sources.len(), 2);
    assert_eq!(divided.references.outputs, set(&["x"]));
    let whole = divided.clone().complete(json!({"c": 1, "d": null, "z": 0}));
    assert_eq!(
        whole.map(Value::Object),
        Ok(json!({"a": [1], "b": "text", "c": 1, "d": null}))
    );
    assert!(
        divided
            .clone()
            .complete(json!({"c": 1}))
            .is_err_and(|why| why.contains("`d`"))
    );
    assert!(divided.clone().complete(json!([])).is_err());
    assert!(divided.references.follows("y", "z") && !divided.references.follows("y", "w"));
}

#[test]
fn a_scope_holds_what_is_referred_to_and_nothing_else() {
    let (body, other) = (json!({"n": 1}), json!("unused"));
    let signals = json!({"s": 1, "t": 2})
        .as_object()
        .cloned()
        .expect("an object");
    let empty = Map::new();
    let values = Values {
        outputs: BTreeMap::from([("a", &body), ("b", &other)]),
        signals: BTreeMap::from([("w", &signals), ("idle", &empty)]),
        secrets: BTreeMap::from([("KEY", "k"), ("OTHER", "o")]),
    };
    let wanted = references("outputs.a + signals.w.s + signals.idle.x + secrets.KEY");
    assert_eq!(
        scope(&wanted, &values),
        Ok(json!({
            "outputs": {"a": {"n": 1}},
            "signals": {"w": {"s": 1}, "idle": {"x": null}},
            "secrets": {"KEY": "k"}
        }))
    );
    let all = scope(&references("f(outputs, signals)"), &values).expect("a scope");
    assert_eq!(all["outputs"]["b"], "unused");
    assert_eq!(all["signals"]["w"], json!({"s": 1, "t": 2}));
    assert_eq!(all["secrets"], json!({}));
    assert_eq!(
        scope(&references("secrets.NONE"), &values),
        Err(Error::NoSuchSecret("NONE".to_owned()))
    );
}

#[test]
fn a_scope_is_bounded() {
    let body = Value::String("x".repeat(super::SCOPE_BYTES_MAX));
    let values = Values {
        outputs: BTreeMap::from([("a", &body)]),
        ..Values::default()
    };
    assert!(matches!(
        scope(&references("outputs.a"), &values),
        Err(Error::ScopeTooLarge(_))
    ));
    assert!(scope(&References::default(), &values).is_ok());
}

proptest! {
    #[test]
    fn no_source_breaks_the_scan(source in "\\PC{0,60}") {
        let _ = references(&source);
    }

    #[test]
    fn javascript_like_noise_breaks_nothing(parts in proptest::collection::vec("outputs|\\.|a|'|\"|`|\\$\\{|\\}|/|\\[|\\]|\\(|\\?\\.|\\\\|\n|é", 0..30)) {
        let _ = references(&parts.concat());
    }

    #[test]
    fn a_constant_is_the_source_of_itself(number in -1.0e9f64..1.0e9, text in "\\PC{0,20}") {
        for value in [json!(number), json!(text), json!([text])] {
            let constant = Expression::Constant(value.clone());
            if !text.contains("__proto__") {
                prop_assert_eq!(Expression::from_source(&constant.to_source()), constant);
            }
            prop_assert_eq!(bytes_of(&value), value.to_string().len());
        }
    }

    #[test]
    fn a_name_in_any_surrounding_is_found(before in "[a-z+ ;(]{0,10}", after in "[a-z+ ;)]{0,10}") {
        let source = format!("{before} outputs.target {after}");
        if !before.contains("let ") && !before.contains("var ") && !before.contains("const ") {
            prop_assert!(references(&source).outputs.contains("target"));
        }
    }
}
