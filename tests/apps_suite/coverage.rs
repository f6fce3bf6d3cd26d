//! The apps of this suite use every call and option of the SDK, so that what
//! none of them covers cannot be forgotten.

use std::path::Path;

use crate::support::repository;

/// The apps of this suite.
const APPS: [&str; 8] = [
    "dynamic",
    "lifecycle",
    "poller",
    "postgresql",
    "selfcall",
    "store",
    "timers",
    "webhook",
];

/// Every function of `@slflows/sdk/v1`.
const CALLS: &str = "
    defineApp
    events.emit events.createPending events.updatePending events.completePending events.cancelPending
    kv.app.get kv.app.getMany kv.app.set kv.app.setMany kv.app.list kv.app.delete kv.app.releaseLock
    kv.block.get kv.block.getMany kv.block.set kv.block.setMany kv.block.list kv.block.delete
    kv.block.releaseLock
    timers.set timers.unset timers.block.set timers.block.unset timers.app.set timers.app.unset
    lifecycle.sync lifecycle.proceed lifecycle.prompt.create lifecycle.prompt.delete
    messaging.sendToBlocks messaging.sendToApp
    blocks.list http.respond ui.widget.set";

/// What definitions consist of.
const DEFINITIONS: &str = "
    name installationInstructions autoconfirm config signals blocks schedules description category
    entrypoint inputs outputs default secondary possiblePrimaryParents type order required fixed
    sensitive sensitivity suggestValues customizable definition cron expression location frequency
    interval unit";

/// Functions that an app may have.
const HANDLERS: &str = "
    onSync onDrain onTimer onInternalMessage onRequest onTrigger onEvent suggestValues";

/// Options of calls and keys of results.
const OPTIONS: &str = "
    outputKey parentEventId secondaryParentEventIds echo complete event statusDescription
    key value ttl lock id timeout keyPrefix startingKey nextStartingKey lockId updatedAt
    inputPayload description pendingEventId promptKey
    redirect url method formFields blockIds body typeIds statusCode headers
    elements tag attributes children
    newStatus customStatusDescription signalUpdates outputUpdates nextScheduleDelay
    suggestedValues label message";

/// What handlers are given.
const INPUTS: &str = "
    app.config app.signals app.prompts app.http.url app.installationUrl
    block.id block.name block.description block.config block.lifecycle block.outputs
    event.id event.inputConfig event.echo.body timer.payload timer.pendingEvent message.body
    request.requestId request.method request.path request.query request.headers request.body
    request.rawBody searchPhrase staticInputConfig .modified";

/// Statuses that a sync or a drain may answer.
const STATUSES: &str = "ready failed in_progress drifted draining drained draining_failed";

#[test]
fn every_call_handler_and_option_of_the_sdk_is_used() {
    let apps = repository().join("tests/apps");
    let source: String = APPS.map(|app| sources(&apps.join(app))).concat();
    let mut unused = Vec::new();
    let mut look = |words: &str, forms: &dyn Fn(&str) -> Vec<String>| {
        for word in words.split_whitespace() {
            if !forms(word).iter().any(|form| has(&source, form)) {
                unused.push(word.to_owned());
            }
        }
    };
    look(CALLS, &|call| vec![format!("{call}(")]);
    look(DEFINITIONS, &|key| {
        vec![format!("{key}:"), format!("{key}(")]
    });
    look(HANDLERS, &|name| {
        vec![format!("{name}("), format!("{name},")]
    });
    look(OPTIONS, &|key| {
        vec![
            format!("{key}:"),
            format!("{key},"),
            format!("{key} }}"),
            format!(".{key}"),
        ]
    });
    look(INPUTS, &|path| vec![path.to_owned()]);
    look(STATUSES, &|status| vec![format!("newStatus: \"{status}\"")]);
    assert!(unused.is_empty(), "no app of the suite uses {unused:?}");
    assert!(has(&source, "return {};"), "a result without a status");
    assert!(has(&source, "export default defineApp("));
    assert!(has(&source, "export const app = defineApp("));
}

/// Whether a text has this, not as the end of a longer word.
fn has(source: &str, form: &str) -> bool {
    source.match_indices(form).any(|(at, _)| {
        let before = source[..at].chars().next_back();
        form.starts_with('.') || !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// All the TypeScript below a directory.
fn sources(dir: &Path) -> String {
    let entries = std::fs::read_dir(dir);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut text = String::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|end| end == "ts") {
            text += &std::fs::read_to_string(&path).expect("a text");
        }
    }
    text
}
