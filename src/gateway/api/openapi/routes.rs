//! The routes of this API, beside `api::handle`, which serves them.

/// One route.
pub struct Route {
    pub method: &'static str,
    /// Below `/api/v1`.
    pub path: &'static str,
    pub does: &'static str,
    /// Fields of the query, in short form.
    pub query: &'static str,
    /// Shape of the body; empty: none.
    pub takes: &'static str,
    pub takes_archive: bool,
    pub status: u16,
    /// Shape of `data`; empty: an answer without an envelope.
    pub gives: &'static str,
    pub streams: bool,
}

const fn route(
    method: &'static str,
    path: &'static str,
    does: &'static str,
    takes: &'static str,
    gives: &'static str,
) -> Route {
    Route {
        method,
        path,
        does,
        query: "",
        takes,
        takes_archive: false,
        status: 200,
        gives,
        streams: false,
    }
}

const fn get(path: &'static str, does: &'static str, gives: &'static str) -> Route {
    route("GET", path, does, "", gives)
}

const fn post(
    path: &'static str,
    does: &'static str,
    takes: &'static str,
    gives: &'static str,
) -> Route {
    route("POST", path, does, takes, gives)
}

const fn make(
    path: &'static str,
    does: &'static str,
    takes: &'static str,
    gives: &'static str,
) -> Route {
    Route {
        status: 201,
        ..post(path, does, takes, gives)
    }
}

const fn delete(path: &'static str, does: &'static str, gives: &'static str) -> Route {
    route("DELETE", path, does, "", gives)
}

// === impl Route ===

impl Route {
    /// What stands before the path.
    pub fn base(&self) -> &'static str {
        match self.path {
            "/health" => "",
            _ => "/api/v1",
        }
    }

    const fn asks(self, query: &'static str) -> Self {
        Self { query, ..self }
    }
}

pub const ROUTES: &[Route] = &[
    get("/health", "Whether the gateway is there", "Health"),
    get("/openapi.json", "This document", ""),
    // Projects.
    get("/projects", "List projects", "Project[]"),
    make("/projects", "Make a project", "Named", "Project"),
    get(
        "/projects/{project}/secrets",
        "List a project's secrets",
        "Secret[]",
    ),
    route(
        "PUT",
        "/projects/{project}/secrets/{secret}",
        "Write a secret",
        "NewSecret",
        "Secret",
    ),
    delete(
        "/projects/{project}/secrets/{secret}",
        "Remove a secret",
        "Nothing",
    ),
    // Keys.
    get("/keys", "List API keys", "Key[]"),
    make("/keys", "Make an API key", "NewKey", "MadeKey"),
    delete("/keys/{key}", "Revoke an API key", "Id"),
    // Pools.
    get("/pools", "List agent pools", "PoolLine[]"),
    make("/pools", "Make an agent pool", "Named", "MadePool"),
    get("/pools/{pool}", "One pool with its agents", "Pool"),
    route(
        "PUT",
        "/pools/{pool}/projects/{project}",
        "Let a project use a pool",
        "",
        "Exposures",
    ),
    delete(
        "/pools/{pool}/projects/{project}",
        "Let a project use a pool no longer",
        "Exposures",
    ),
    post(
        "/pools/{pool}/rotate",
        "Give a pool another token",
        "Overlap",
        "Rotated",
    ),
    post(
        "/pools/{pool}/revoke",
        "End all tokens of a pool",
        "",
        "Revoked",
    ),
    // Apps.
    get("/apps", "List apps", "App[]"),
    make("/apps", "Make an app", "NewApp", "App"),
    get(
        "/apps/{app}/versions",
        "List an app's versions",
        "Version[]",
    ),
    Route {
        takes_archive: true,
        ..make(
            "/apps/{app}/versions",
            "Publish a version",
            "NewVersion",
            "Version",
        )
        .asks("*version:s")
    },
    get("/versions/{version}", "One app version", "Version"),
    // Registries.
    get("/registries", "List registries", "Registry[]"),
    make(
        "/registries",
        "Follow a registry",
        "NewRegistry",
        "Registry",
    ),
    get("/registries/{registry}", "One registry", "Registry"),
    delete(
        "/registries/{registry}",
        "Follow a registry no longer",
        "Nothing",
    ),
    post(
        "/registries/{registry}/refresh",
        "Ask a registry now",
        "",
        "Registry",
    ),
    get(
        "/registries/{registry}/apps",
        "List a registry's apps",
        "ListedApp[]",
    ),
    get(
        "/registries/{registry}/apps/{listed}/versions",
        "List the versions of an app in a registry",
        "ListedVersion[]",
    ),
    post(
        "/registries/{registry}/install",
        "Fetch a version from a registry",
        "FromRegistry",
        "Version",
    ),
    // Jobs.
    get("/jobs", "List jobs, newest first", "Jobs")
        .asks("*project:s *pool:s *state:s *kind:s *before:i *limit:i"),
    post("/jobs", "Submit a job", "NewJob", "Job").asks("*wait:i"),
    get("/jobs/{job}", "One job", "Job").asks("*wait:i"),
    get("/jobs/{job}/trace", "The hops of a job", "Trace"),
    get("/jobs/{job}/calls", "The SDK calls of a job", "Call[]"),
    get("/jobs/{job}/log", "What a job's code logged", "JobLine[]").asks("*skip:i *limit:i"),
    post("/jobs/{job}/cancel", "End a job", "Reason", "Job"),
    // Installations.
    get("/installations", "List app installations", "Installation[]").asks("*project:s"),
    make(
        "/installations",
        "Install an app version",
        "NewInstallation",
        "Installation",
    ),
    get(
        "/installations/{installation}",
        "One installation",
        "Installation",
    ),
    delete(
        "/installations/{installation}",
        "Drain and remove an installation",
        "Nothing",
    ),
    route(
        "PATCH",
        "/installations/{installation}/config",
        "Change fields of the config",
        "Config",
        "Installation",
    ),
    post(
        "/installations/{installation}/confirm",
        "Confirm a draft",
        "",
        "Installation",
    ),
    post(
        "/installations/{installation}/sync",
        "Sync once more",
        "",
        "Installation",
    ),
    post(
        "/installations/{installation}/version",
        "Give an installation other code",
        "OtherVersion",
        "Installation",
    ),
    get(
        "/installations/{installation}/kv",
        "What an app keeps",
        "Pairs",
    )
    .asks("*block:s *prefix:s *from:s"),
    get(
        "/installations/{installation}/log",
        "What an app's handlers wrote",
        "Line[]",
    ),
    get(
        "/installations/{installation}/schedules",
        "When an app is called by the clock",
        "Schedule[]",
    ),
    route(
        "PUT",
        "/installations/{installation}/schedules/{schedule}",
        "Customize a schedule",
        "o",
        "Schedule[]",
    ),
    delete(
        "/installations/{installation}/schedules/{schedule}",
        "Leave a schedule to the app",
        "Schedule[]",
    ),
    post(
        "/installations/{installation}/suggestions",
        "Values that an app suggests for a config field",
        "Ask",
        "Suggestions",
    ),
    // Flows.
    get("/flows", "List flows", "Flow[]").asks("*project:s"),
    make("/flows", "Make a flow", "NewFlow", "Flow"),
    get("/flows/{flow}", "One flow with its definition", "WholeFlow"),
    route(
        "PATCH",
        "/flows/{flow}",
        "Rename a flow",
        "Named",
        "WholeFlow",
    ),
    delete("/flows/{flow}", "Remove a flow", "Nothing"),
    post(
        "/flows/{flow}/apply",
        "Bring a flow to a definition",
        "Definition",
        "Plan",
    ),
    post(
        "/flows/{flow}/plan",
        "What applying would do",
        "Definition",
        "Plan",
    ),
    get("/flows/{flow}/blocks", "List a flow's blocks", "Block[]"),
    make(
        "/flows/{flow}/blocks/{block}/inputs/{input}/events",
        "Bring an event to an input",
        "a",
        "Id",
    ),
    Route {
        streams: true,
        ..get(
            "/flows/{flow}/events",
            "Events with their deliveries",
            "Event[]",
        )
        .asks("*after:i *before:i *limit:i *stream:s(0|1)")
    },
    get("/flows/{flow}/pending", "Events that are announced", "o[]"),
    get("/events/{event}", "One event", "Event"),
    get(
        "/events/{event}/log",
        "What an event's handlers wrote",
        "Line[]",
    ),
    post(
        "/deliveries/{delivery}/replay",
        "Do a failed delivery once more",
        "",
        "Delivery",
    ),
    // Blocks.
    get("/blocks/{block}", "One block", "Block"),
    post("/blocks/{block}/confirm", "Confirm a draft", "", "Block"),
    post("/blocks/{block}/sync", "Sync once more", "", "Block"),
    get("/blocks/{block}/kv", "What a block keeps", "Pairs").asks("*prefix:s *from:s"),
    get(
        "/blocks/{block}/log",
        "What a block's handlers wrote",
        "Line[]",
    ),
    get(
        "/blocks/{block}/schedules",
        "When a block is called by the clock",
        "Schedule[]",
    ),
    route(
        "PUT",
        "/blocks/{block}/schedules/{schedule}",
        "Customize a schedule",
        "o",
        "Schedule[]",
    ),
    delete(
        "/blocks/{block}/schedules/{schedule}",
        "Leave a schedule to the app",
        "Schedule[]",
    ),
    post(
        "/blocks/{block}/suggestions",
        "Values that an app suggests for a config field",
        "Ask",
        "Suggestions",
    ),
];
