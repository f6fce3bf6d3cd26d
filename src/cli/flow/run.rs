//! `sluice flow run`: a definition from a file to the end of a chain of events.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::FutureExt;
use serde_json::{Value, json};

use crate::cli::admin::{Admin, Failure, query};
use crate::cli::app::{Bundle, load};
use crate::cli::flow::chain::Chain;
use crate::cli::flow::definition::{self, Change, parse_mapping};
use crate::cli::flow::entry::{self, Entry};
use crate::cli::flow::follow::{Ending, Follow};
use crate::cli::flow::house::{self, House};
use crate::cli::flow::tell::{Teller, names};
use crate::cli::flow::{parse_body, trigger};
use crate::cli::installed::{self, Wanted, parse_field};
use crate::cli::{LookUp, print, rig_settings, role};
use crate::gateway::engine::definition::{Definition, Installation};
use crate::shutdown::Shutdown;

/// An event failed.
const EXIT_EVENT_FAILED: i32 = 2;
/// The chain was not quiet in time.
const EXIT_TIMED_OUT: i32 = 3;
/// Ctrl-C or SIGTERM.
const EXIT_INTERRUPTED: i32 = 130;
/// The project where nobody names one: `sluice up` makes it.
const PROJECT: &str = "default";
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// Run a flow from a file: apply it, start it, follow its events to the end.
///
/// Uses the gateway that SLUICE_URL names or that runs on the data directory;
/// where there is none, starts a gateway and an agent in a scratch directory and
/// ends them with the run. A flow of the name is made or brought to the
/// definition, its apps are installed, a block gets an event.
///
/// Exits with 0 when nothing failed, 2 when an event failed, 3 when it took too
/// long, 4 when the definition is refused, 130 when it was interrupted.
///
/// Example: sluice flow run docs/examples/greeting.yaml --body '{"name": "Ada"}'
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The definition; `-` is standard input.
    file: PathBuf,
    /// The flow's name; without it that of the file.
    #[arg(long)]
    name: Option<String>,
    /// The project, by id or name.
    #[arg(long)]
    project: Option<String>,
    /// The block that gets the event, where several could.
    #[arg(long)]
    block: Option<String>,
    /// The input of that block.
    #[arg(long)]
    input: Option<String>,
    /// The event's body: JSON, or @ and the name of a file with JSON.
    #[arg(long, value_name = "JSON|@FILE", value_parser = parse_body)]
    body: Option<Value>,
    /// The bundle or the TypeScript of an app that the definition names by this
    /// key; repeat it for more.
    #[arg(long = "app", value_name = "KEY=FILE", value_parser = parse_mapping)]
    apps: Vec<(String, String)>,
    /// A field of an installation's config, as JavaScript; repeat it for more.
    #[arg(long = "config", value_name = "KEY.FIELD=JAVASCRIPT", value_parser = parse_field)]
    config: Vec<(String, String)>,
    /// The pool of new installations, by id or name; without it the default pool.
    #[arg(long)]
    pool: Option<String>,
    /// How many seconds apps and blocks may take to be ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    wait: u64,
    /// How many seconds the chain may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Start a gateway and an agent for this run even if others are there.
    #[arg(long)]
    fresh: bool,
    /// Start them in this directory and leave their state there.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// What was read before anything was started.
struct Plan {
    text: String,
    definition: Definition,
    entry: Entry,
    bundles: BTreeMap<String, Bundle>,
    /// By key of the installation.
    config: BTreeMap<String, BTreeMap<String, String>>,
}

// === impl Run ===

impl Run {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let read = |reader: &mut crate::config::Reader<'_>| (reader.admin(), rig_settings(reader));
        let ((config, settings), shutdown) = role(look_up, read)?;
        let teller = Teller::new(self.json);
        let plan = interruptible(&shutdown, self.plan(&config.data_dir)).await?;
        let is_own = self.fresh || self.dir.is_some();
        let running = match is_own {
            false => house::running(look_up, &config).await?,
            true => None,
        };
        if let Some(admin) = running {
            return interruptible(&shutdown, self.play(&admin, &plan, &teller)).await;
        }
        teller.progress("Starting a gateway and an agent");
        let mut house = House::start(&settings, self.dir.as_deref())?;
        let work = async {
            let admin = house.ready().await?;
            self.play(&admin, &plan, &teller).await
        };
        let result = interruptible(&shutdown, work).await;
        if !self.json {
            // In JSON the last line says how it ended.
            teller.progress("Stopping them");
        }
        let left = house.stop(&shutdown).await;
        left.iter()
            .for_each(|what| eprintln!("sluice: left behind: {what}"));
        match result {
            Ok(0) if !left.is_empty() => Ok(1),
            result => result,
        }
    }

    /// Reads what there is to read, and refuses what cannot go well.
    async fn plan(&self, data_dir: &std::path::Path) -> Result<Plan, Failure> {
        let text = definition::read(&self.file)?;
        let definition =
            Definition::parse(&text).map_err(|faults| definition::refused(&faults.to_string()))?;
        let entry = entry::choose(&definition, self.block.as_deref(), self.input.as_deref())
            .map_err(Failure::Usage)?;
        let known = |key: &str| match definition.installations.contains_key(key) {
            true => Ok(()),
            false => {
                let keys: Vec<_> = definition.installations.keys().cloned().collect();
                Err(Failure::Usage(format!(
                    "the definition has no installation `{key}`; it has: {}",
                    keys.join(", ")
                )))
            }
        };
        let mut bundles = BTreeMap::new();
        for (key, file) in &self.apps {
            known(key)?;
            let bundle = load(data_dir, file.as_ref(), None).await?;
            bundles.insert(key.clone(), bundle);
        }
        let mut config = BTreeMap::<String, BTreeMap<_, _>>::new();
        for (path, source) in &self.config {
            let (key, field) = path
                .split_once('.')
                .ok_or_else(|| Failure::Usage(format!("`{path}`: write KEY.FIELD=JAVASCRIPT")))?;
            known(key)?;
            let fields = config.entry(key.to_owned()).or_default();
            fields.insert(field.to_owned(), source.clone());
        }
        Ok(Plan {
            text,
            definition,
            entry,
            bundles,
            config,
        })
    }

    async fn play(&self, admin: &Admin, plan: &Plan, teller: &Teller) -> Result<i32, Failure> {
        let project = self.project(admin).await?;
        let until = Instant::now() + Duration::from_secs(self.wait);
        let mut change = Change::new(plan.text.clone());
        for (key, installation) in &plan.definition.installations {
            let id = self
                .installation(admin, &project, (key, installation), plan)
                .await?;
            let say = |_: &str, status: &str| teller.progress(&format!("App `{key}` is {status}"));
            installed::ready(admin, &id, until, say).await?;
            change.installations.insert(key.clone(), id);
        }
        let flow = self.apply(admin, &project, &change, teller).await?;
        blocks_ready(admin, &flow, plan, until, teller).await?;
        teller.know(names(admin, &flow).await?);
        let follow = Follow {
            admin,
            flow: &flow,
            teller,
        };
        let before = follow.before().await?;
        let Entry { block, input } = &plan.entry;
        teller.progress(&format!(
            "An event goes to block `{block}`, input `{input}`"
        ));
        let body = self.body.clone().unwrap_or(json!({}));
        let started = Instant::now();
        let root = trigger(admin, &flow, block, input, &body).await?;
        let limit = Duration::from_secs(self.timeout);
        let (ending, chain) = follow.to_the_end(&root, &before, limit).await?;
        Ok(conclude(
            &ending,
            &chain,
            (&flow, &root),
            started.elapsed(),
            teller,
        ))
    }

    /// The project that is named, or the usual one, or the only one.
    async fn project(&self, admin: &Admin) -> Result<String, Failure> {
        if let Some(project) = &self.project {
            return admin.project(project).await;
        }
        let projects = admin.get("/api/v1/projects").await?;
        let projects = projects.as_array().map(Vec::as_slice).unwrap_or_default();
        let usual = projects.iter().find(|project| project["name"] == PROJECT);
        match (usual, projects) {
            (Some(project), _) | (None, [project]) => Ok(print::text(&project["id"])),
            _ => Err(Failure::Usage(
                "say which project with --project: `sluice project list` shows all".to_owned(),
            )),
        }
    }

    /// The installation that a key of the definition means, made if need be.
    async fn installation(
        &self,
        admin: &Admin,
        project: &str,
        (key, asked): (&str, &Installation),
        plan: &Plan,
    ) -> Result<String, Failure> {
        let version = match plan.bundles.get(key) {
            Some(bundle) => {
                let name = asked.app_name.as_deref().unwrap_or(key);
                let app = installed::app(admin, project, name).await?;
                Some(installed::publish(admin, &app, bundle).await?)
            }
            None => {
                let path = query(&[("project", Some(project.to_owned()))]);
                let known = admin.get(&format!("/api/v1/installations{path}")).await?;
                let mut known = known.as_array().into_iter().flatten();
                let meant = |it: &&Value| it["id"].as_str() == asked.id.as_deref();
                if let Some(it) = known.find(meant) {
                    if let Some(config) = plan.config.get(key) {
                        installed::configure(admin, it, config).await?;
                    }
                    return Ok(print::text(&it["id"]));
                }
                version_of(admin, project, asked).await?
            }
        };
        let Some(version) = version else {
            let (app, version) = (asked.app_name.as_deref(), asked.app_version.as_deref());
            return Err(Failure::Usage(format!(
                "the definition's installation `{key}` is not there, and this project has no app `{}` {} to install: bring it with --app {key}=FILE",
                app.unwrap_or(key),
                version.unwrap_or_default(),
            )));
        };
        let pool = match &self.pool {
            Some(pool) => Some(admin.pool(pool).await?),
            None => None,
        };
        let none = BTreeMap::new();
        let wanted = Wanted {
            project,
            name: key,
            version: version["id"].as_str().unwrap_or_default(),
            pool: pool.as_deref(),
            config: plan.config.get(key).unwrap_or(&none),
        };
        installed::install(admin, &wanted).await
    }

    /// Makes the flow or finds it by its name, and brings it to the definition.
    async fn apply(
        &self,
        admin: &Admin,
        project: &str,
        change: &Change,
        teller: &Teller,
    ) -> Result<String, Failure> {
        let stem = self.file.file_stem().unwrap_or_default();
        let stem = stem.to_string_lossy();
        let name = match self.name.as_deref() {
            Some(name) => name,
            None if stem == "-" => "flow",
            None => &stem,
        };
        let path = query(&[("project", Some(project.to_owned()))]);
        let flows = admin.get(&format!("/api/v1/flows{path}")).await?;
        let known = flows.as_array().into_iter().flatten();
        let known: Vec<_> = known.filter(|flow| flow["name"] == name).collect();
        let (flow, is_new) = match known[..] {
            [] => {
                let body = json!({"project": project, "name": name});
                (admin.post("/api/v1/flows", &body).await?, true)
            }
            [flow] => (flow.clone(), false),
            _ => {
                return Err(Failure::Usage(format!(
                    "more than one flow is named `{name}`: take another name with --name"
                )));
            }
        };
        let id = print::text(&flow["id"]);
        let plan = match change.send(admin, &id, "apply").await {
            Ok(plan) => plan,
            Err(failure) => {
                if is_new {
                    // The refusal is worth telling, not what came of tidying up.
                    let path = format!("/api/v1/flows/{id}");
                    let _ = admin.call("DELETE", &path, None).await;
                }
                return Err(failure);
            }
        };
        let operations = plan["operations"].as_array().map_or(0, Vec::len);
        teller.progress(&match operations {
            0 => format!("Flow `{name}` is as the definition says"),
            _ => format!("Flow `{name}`: {operations} changes applied"),
        });
        Ok(id)
    }
}

/// Does work until it ends or a signal comes.
async fn interruptible<T>(
    shutdown: &Shutdown,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let work = work.fuse();
    let draining = shutdown.draining().fuse();
    futures::pin_mut!(work, draining);
    futures::select! {
        result = work => result,
        () = draining => Err(Failure::Exit(EXIT_INTERRUPTED, "interrupted".to_owned())),
    }
}

/// The version that a definition names, of the project's own apps or of one
/// that a registry lists.
async fn version_of(
    admin: &Admin,
    project: &str,
    asked: &Installation,
) -> Result<Option<Value>, Failure> {
    let Some(name) = &asked.app_name else {
        return Ok(None);
    };
    let apps = admin.get("/api/v1/apps").await?;
    let mut apps = apps.as_array().into_iter().flatten();
    let app = apps.find(|app| app["project"] == project && app["name"] == name.as_str());
    let version = asked.app_version.as_deref();
    if let Some(app) = app.and_then(|app| app["id"].as_str())
        && let Some(found) = installed::version(admin, app, version).await?
    {
        return Ok(Some(found));
    }
    installed::from_registry(admin, name, version).await
}

/// Confirms the drafts among the blocks, and waits until all are ready.
async fn blocks_ready(
    admin: &Admin,
    flow: &str,
    plan: &Plan,
    until: Instant,
    teller: &Teller,
) -> Result<(), Failure> {
    let path = format!("/api/v1/flows/{flow}/blocks");
    let mut said = BTreeMap::new();
    loop {
        let blocks = admin.get(&path).await?;
        let blocks = blocks.as_array().into_iter().flatten();
        let mut waits = None;
        for block in blocks {
            let (name, status) = (print::text(&block["name"]), print::text(&block["status"]));
            let is_ready = status == "ready" || status.starts_with("drain");
            if is_ready
                || plan
                    .definition
                    .block(&name)
                    .is_none_or(|block| !block.active)
            {
                continue;
            }
            let error = block["config_error"].as_str();
            let text = error.or(block["status_text"].as_str()).unwrap_or_default();
            let now = installed::sentence(&status, &print::harmless(text));
            if status == "failed" || status == "drifted" || error.is_some() {
                return Err(anyhow::anyhow!("block `{name}` is {now}").into());
            }
            if said.insert(name.clone(), now.clone()).as_ref() != Some(&now) {
                teller.progress(&format!("Block `{name}` is {now}"));
            }
            if status == "draft" {
                installed::confirm(admin, "blocks", &print::text(&block["id"])).await?;
            }
            waits = Some(format!("block `{name}` is not ready in time; it is {now}"));
        }
        match waits {
            None => return Ok(()),
            Some(sentence) if Instant::now() > until => {
                return Err(anyhow::anyhow!(sentence).into());
            }
            Some(_) => async_std::task::sleep(LOOK_EVERY).await,
        }
    }
}

/// Says how it ended; answers with the exit code.
fn conclude(
    ending: &Ending,
    chain: &Chain,
    (flow, root): (&str, &str),
    took: Duration,
    teller: &Teller,
) -> i32 {
    let (events, failed, took_s) = (chain.events(), chain.failed, took.as_secs_f64());
    let (code, how, waits) = match ending {
        Ending::TimedOut(waits) => (EXIT_TIMED_OUT, "timed_out", Some(waits.as_str())),
        Ending::Quiet { .. } if failed > 0 => (EXIT_EVENT_FAILED, "failed", None),
        Ending::Quiet { .. } => (0, "ok", None),
    };
    let mut sentence = match waits {
        Some(waits) => format!("Not quiet after {took_s:.1} s: it waits for {waits}."),
        None => format!("Quiet after {took_s:.1} s: {events} events, {failed} failures."),
    };
    let mut later = Value::Null;
    if let Ending::Quiet {
        later_ms: Some(later_ms),
    } = ending
    {
        let at = print::moment(Some(later_ms * 1_000));
        sentence.push_str(&format!(
            " A timer is due at {at}, which is not waited for."
        ));
        later = at.into();
    }
    let told = json!({
        "how": how, "ok": code == 0, "events": events, "failures": failed,
        "seconds": (took_s * 1_000.0).round() / 1_000.0, "flow": flow, "event": root,
        "waits_for": waits, "later": later,
    });
    teller.end(&told, &sentence);
    code
}
