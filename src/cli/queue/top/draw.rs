//! How a [`Screen`] looks. Pure: a value in, widgets out.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, TableState, Wrap};
use serde_json::{Value, json};

use crate::cli::print::cell;
use crate::cli::queue::top::Screen;

/// Lines for answers below the jobs, at least; a long one gets up to a third of the screen.
const NOTE_LINES: u16 = 8;

/// The jobs in workers' hands, the longest-running first.
pub(super) fn jobs(overview: &Value) -> Vec<Value> {
    let now = overview["now_us"].as_u64().unwrap_or(0);
    let mut all = Vec::new();
    for worker in list(&overview["workers"]) {
        for job in list(&worker["holds"]["jobs"]) {
            let mut job = job.clone();
            job["worker"] = worker["worker"].clone();
            let since = job["since_us"].as_u64().filter(|since| *since > 0);
            job["elapsed_us"] = json!(since.map(|since| now.saturating_sub(since)));
            all.push(job);
        }
    }
    all.sort_by_key(|job| std::cmp::Reverse(job["elapsed_us"].as_u64()));
    all
}

pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let overview = &screen.overview;
    let heights = [
        Constraint::Length(1),
        Constraint::Length(rows_of(&overview["queues"]) + 3),
        Constraint::Length(rows_of(&overview["workers"]).max(1) + 3),
        Constraint::Min(4),
        Constraint::Length(note_lines(screen, frame.area().height)),
        Constraint::Length(1),
    ];
    let [head, queues, workers, jobs, note, keys] = Layout::vertical(heights).areas(frame.area());
    frame.render_widget(Line::from(headline(overview)).style(Modifier::BOLD), head);
    frame.render_widget(queue_table(overview), queues);
    frame.render_widget(worker_table(overview), workers);
    let mut state = TableState::default().with_selected(Some(screen.selected));
    frame.render_stateful_widget(job_table(&screen.jobs), jobs, &mut state);
    let note_text = if screen.note.is_empty() {
        list(&overview["unknown"])
            .iter()
            .map(|why| cell(Some(why)))
            .collect::<Vec<_>>()
            .join("\n")
    } else {
        screen.note.clone()
    };
    let note_text = Paragraph::new(note_text).wrap(Wrap { trim: false });
    let note_text = note_text.scroll((screen.scrolled, 0));
    frame.render_widget(note_text.block(Block::bordered()), note);
    let all_keys =
        "↑↓ job  p peek  t trace  w why  PgUp PgDn read on  c cancel  space pause/resume  q quit";
    frame.render_widget(Line::from(all_keys), keys);
}

/// With its border.
fn note_lines(screen: &Screen, height: u16) -> u16 {
    let lines = u16::try_from(screen.note.lines().count() + 2).unwrap_or(u16::MAX);
    lines.min(height / 3).max(NOTE_LINES)
}

fn headline(overview: &Value) -> String {
    let rate = |name: &str| {
        overview[name]
            .as_f64()
            .map_or("-".to_owned(), |rate| format!("{rate:.1}/s"))
    };
    let dead: u64 = list(&overview["dead"])
        .iter()
        .filter_map(|cause| cause["jobs"].as_u64())
        .sum();
    let order = match overview["order"]["mode"].as_str() {
        Some(mode) => format!("  {}", mode.to_uppercase()),
        None => String::new(),
    };
    format!(
        "pool {}  in {}  out {}  dead {dead}{order}",
        cell(overview.get("pool")),
        rate("accepted_per_s"),
        rate("ended_per_s"),
    )
}

fn queue_table(overview: &Value) -> Table<'static> {
    let columns = ["QUEUE", "DEPTH", "OLDEST", "UNACKED", "CONSUMERS"];
    let rows = list(&overview["queues"]).iter().map(|view| {
        let oldest = view["oldest_s"]
            .as_u64()
            .map_or("-".to_owned(), |s| format!("{s} s"));
        Row::new([
            cell(view.get("role")),
            cell(view.get("depth")),
            oldest,
            cell(view.get("unacked")),
            cell(view.get("consumers")),
        ])
    });
    let widths = [12, 10, 10, 10, 10].map(Constraint::Length);
    titled(Table::new(rows, widths), "queues", &columns)
}

fn worker_table(overview: &Value) -> Table<'static> {
    let columns = [
        "WORKER",
        "STATE",
        "SLOTS",
        "RUNTIMES",
        "MEMORY",
        "CPU",
        "TAKES NO WORK BECAUSE",
    ];
    let rows = list(&overview["workers"]).iter().map(|worker| {
        let holds = &worker["holds"];
        let runtimes: Vec<String> = list(&holds["runtimes"])
            .iter()
            .filter(|pair| pair[1] != 0)
            .map(|pair| format!("{} {}", pair[1], cell(pair.get(0))))
            .collect();
        let sum = |name: &str| -> u64 {
            list(&holds["containers"])
                .iter()
                .filter_map(|used| used[name].as_u64())
                .sum()
        };
        Row::new([
            cell(worker.get("worker")),
            cell(worker.get("state")),
            format!("{}/{}", worker["in_flight"], worker["slots"]),
            runtimes.join(", "),
            format!("{} MiB", sum("memory_bytes") >> 20),
            format!("{:.1} s", sum("cpu_us") as f64 / 1e6),
            cell(worker.get("refusing")),
        ])
    });
    let widths = [
        Constraint::Length(24),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(24),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Min(10),
    ];
    titled(Table::new(rows, widths), "workers", &columns)
}

fn job_table(jobs: &[Value]) -> Table<'static> {
    let columns = ["JOB", "KIND", "ELAPSED", "CONTAINER", "LAST LINE"];
    let rows = jobs.iter().map(|job| {
        let elapsed = match job["elapsed_us"].as_u64() {
            Some(us) => format!("{:.1} s", us as f64 / 1e6),
            None => "waits".to_owned(),
        };
        let line: String = cell(job.get("last_line"))
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        Row::new([
            cell(job.get("job")),
            cell(job.get("kind")),
            elapsed,
            cell(job.pointer("/runtime/container")),
            line,
        ])
    });
    let widths = [
        Constraint::Length(36),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(26),
        Constraint::Min(10),
    ];
    let title = format!("jobs in flight: {}", jobs.len());
    titled(Table::new(rows, widths), &title, &columns)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
}

fn titled(table: Table<'static>, title: &str, columns: &[&str]) -> Table<'static> {
    let header: Vec<Cell<'static>> = columns
        .iter()
        .map(|column| Cell::from((*column).to_owned()))
        .collect();
    table
        .header(Row::new(header).style(Modifier::BOLD))
        .block(Block::bordered().title(title.to_owned()))
}

fn rows_of(value: &Value) -> u16 {
    u16::try_from(list(value).len()).unwrap_or(u16::MAX).min(8)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
