//! What requests carry and answers hold, by name, in the short form of
//! [`schema`](crate::gateway::api::openapi::schema).

pub const SHAPES: &[(&str, &str)] = &[
    ("Health", "ok:b now_ms:i version:s"),
    ("Nothing", ""),
    ("Id", "id:s"),
    // Projects, keys, pools.
    ("Named", "name:s"),
    ("Project", "id:s name:s created_us:i"),
    ("NewKey", "name:s *projects:s[]? *scopes:s[]? *expires:a"),
    ("MadeKey", "id:s name:s key:s scopes:s[]"),
    (
        "Key",
        "id:s name:s projects:s[]? scopes:s[] expires_ms:i? created_us:i",
    ),
    ("MadePool", "id:s name:s token:s"),
    (
        "PoolLine",
        "id:s name:s default:b connected_agents:i queued:i",
    ),
    (
        "Pool",
        "id:s name:s default:b revoked:b connected_agents:i agents:o[] projects:s[] queued:i \
         reports_refused:o",
    ),
    ("Exposures", "pool:s projects:s[]"),
    ("Overlap", "*overlap_s:i?"),
    ("Rotated", "token:s old_valid_until_ms:i"),
    ("Revoked", "pool:s revoked:b"),
    // Apps and registries.
    ("NewApp", "project:s name:s"),
    ("App", "id:s project:s? name:s registry:s? created_us:i"),
    ("NewVersion", "version:s code:s *ui_code:s?"),
    (
        "Version",
        "id:s app:s version:s digest:s code_bytes:i ui_digest:s? draft:b created_us:i",
    ),
    ("NewRegistry", "name:s url:s"),
    (
        "Registry",
        "id:s name:s url:s checked_ms:i? error:s? failures:i next_ms:i created_ms:i",
    ),
    ("ListedApp", "key:s name:s description:s? style:o? error:s?"),
    (
        "ListedVersion",
        "version:s state:s(listed|changed|gone) checksum:s listed_checksum:s? url:s seen_ms:i id:s?",
    ),
    ("FromRegistry", "app:s *version:s?"),
    // Jobs.
    (
        "NewJob",
        "project:s kind:s *pool:s? *priority:s(normal|high)? *timeout_ms:i? *expires_ms:i? \
         *expressions:s{}? *scope:o? *flow:s? *block:s? *version:s? *installation:s? \
         *handler:o? *input:o?",
    ),
    (
        "Job",
        "id:s kind:s state:s(queued|dispatched|accepted|started|succeeded|failed|cancelled) pool:s project:s priority:s(normal|high) block:s? attempt:s? \
         worker:s? container:s? origin:s? created_us:i finished_us:i? *replay_of:s \
         *cancelling:o *waiting:o *log_bytes_dropped:i *sdk_calls:i *outcome:o",
    ),
    ("Jobs", "jobs:Job[] next_before:i?"),
    (
        "Trace",
        "job:s kind:s state:s(queued|dispatched|accepted|started|succeeded|failed|cancelled) attempt:s? worker:s? container:s? origin:s? replay_of:s? \
         log_bytes_dropped:i? hops:Hop[] calls:TracedCall[] log_bytes:i attempts:o[]",
    ),
    (
        "Hop",
        "name:s at_us:i since_previous_us:i *attempt:s *worker:s? *container:s? *origin:s?",
    ),
    ("TracedCall", "number:i attempt:s method:s at_us:i error:s?"),
    (
        "Call",
        "number:i attempt:s method:s args:a? answer:a? at_us:i",
    ),
    ("JobLine", "attempt:s seq:i at_us:i level:s text:s"),
    ("Reason", "*reason:s?"),
    // Installations, flows, blocks.
    (
        "NewInstallation",
        "project:s name:s version:s *pool:s? *config:o? *confirm:b?",
    ),
    (
        "Installation",
        "id:s project:s name:s version:s pool:s status:s(draft|in_progress|ready|failed|drifted|draining|drained|draining_failed) status_text:s? config:s{} signals:o \
         prompts:a url:s instructions:s? created_ms:i",
    ),
    ("Config", "config:o"),
    ("OtherVersion", "version:s"),
    ("Pairs", "pairs:Pair[] next:s?"),
    ("Pair", "key:s *value:a? *updatedAt:i *ttl:i *lock:o"),
    ("Line", "job:s kind:s at_us:i level:s text:s"),
    (
        "Schedule",
        "key:s description:s? customizable:b definition:o customized:o? next_ms:i?",
    ),
    (
        "Ask",
        "field:s *input:s? *searchPhrase:s? *staticInputConfig:o?",
    ),
    ("Suggestions", "suggestedValues:Suggestion[] *message:s"),
    ("Suggestion", "label:s value:a? *description:s"),
    ("NewFlow", "project:s name:s"),
    ("Flow", "id:s project:s name:s created_ms:i"),
    (
        "WholeFlow",
        "id:s project:s name:s created_ms:i definition:s open:i deliveries:i{} jobs:i \
         next_timer_ms:i?",
    ),
    ("Definition", "definition:s *installations:s{}?"),
    ("Plan", "operations:o[] readable:s"),
    (
        "Block",
        "id:s flow:s name:s type:s installation:s? status:s(draft|in_progress|ready|failed|drifted|draining|drained|draining_failed) status_text:s? config_error:s? \
         signals:o *config:o? *prompts:a *widget:a?",
    ),
    (
        "Event",
        "seq:i id:s flow:s block:s? output:s? body:a? parent:s? secondary_parents:s[]? state:s \
         error:s? job:s? created_ms:i deliveries:Delivery[]",
    ),
    (
        "Delivery",
        "id:s block:s input:s state:s error:s? tries:i job:s? created_ms:i ended_ms:i?",
    ),
    ("NewSecret", "value:s"),
    ("Secret", "key:s updated_ms:i"),
];
