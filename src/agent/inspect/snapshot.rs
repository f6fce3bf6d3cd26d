//! Which jobs the broker has, message by message, without taking any.
//!
//! ```text
//!  erl_call ─▶ the private node ─▶ rabbit_quorum_queue:peek(position), from the oldest on ─▶ message ids
//! ```
//!
//! AMQP knows no look that is no delivery. The broker's own `peek` is one, and
//! only its administrator may use it: so this works where the agent runs the
//! broker itself, and needs `erl_call`, which comes with Erlang. Elsewhere
//! there is no snapshot, and a check goes by numbers.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_process::Command;
use async_std::future::timeout;
use futures::AsyncWriteExt;
use sluice_proto::queue::Names;

use crate::agent::rabbitmq::Node;

/// Messages looked at per queue, oldest first: each costs the broker some 0.1 ms.
const MESSAGES_MAX: usize = 2_000;
/// How long the broker may be kept looking at one queue, in milliseconds.
const QUEUE_MS_MAX: u64 = 300;
/// How long the whole may take.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// The programme that talks to an Erlang node; a part of Erlang.
const ERL_CALL: &str = "erl_call";

/// Reads queue after queue; `{Whole, Ids}` of each.
const PROGRAMME: &str = "\
Read = fun Next(_, At, _, Ids) when At > MESSAGES -> {more, Ids};
  Next(Queue, At, Until, Ids) ->
    case erlang:monotonic_time(millisecond) > Until of
      true -> {more, Ids};
      false ->
        case rabbit_quorum_queue:peek(<<\"/\">>, Queue, At) of
          {ok, Seen} ->
            Id = binary_to_list(proplists:get_value(<<\"message_id\">>, Seen, <<\"?\">>)),
            Next(Queue, At + 1, Until, [Id | Ids]);
          {error, no_message_at_pos} -> {all, Ids}
        end
    end
  end,
[Read(Queue, 1, erlang:monotonic_time(millisecond) + MILLISECONDS, []) || Queue <- QUEUES].
";

/// What the broker was seen to hold at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Ids of messages that are ready to be delivered; one that is there twice stands here twice.
    pub ready: Vec<String>,
    /// Ids of messages that wait a moment before they are tried again.
    pub retry: Vec<String>,
    /// Whether these are all; else they are the oldest.
    pub whole: bool,
}

/// Looks; `None` where that cannot be done, with the reason in the log.
pub async fn take(data_dir: &Path, names: &Names) -> Option<Snapshot> {
    // What is to be tried again goes back to `jobs`, so a message may be seen in
    // both, and none is missed between them.
    let queues = [
        &names.retry_high,
        &names.retry,
        &names.jobs_high,
        &names.jobs,
    ];
    if !queues.iter().all(|queue| is_plain(queue)) {
        return None;
    }
    let dir = data_dir.join("agent").join("rabbitmq");
    let node = Node::kept(&dir)?;
    match timeout(ANSWER_MAX, ask(&dir, &node, &programme(&queues))).await {
        Ok(Ok(answer)) => {
            let seen = parse(&answer);
            if seen.is_none() {
                tracing::debug!(answer = %cut(&answer), "The broker's messages cannot be looked at");
            }
            seen
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "The broker's messages cannot be looked at");
            None
        }
        Err(_) => {
            tracing::debug!("The broker takes too long to let its messages be looked at");
            None
        }
    }
}

async fn ask(dir: &Path, node: &Node, programme: &str) -> std::io::Result<String> {
    let mut command = std::process::Command::new(ERL_CALL);
    command
        .arg("-address")
        .arg(format!("127.0.0.1:{}", node.distribution_port))
        .args(["-timeout", "3", "-e"])
        // The cookie is read from there, and is no argument that others could see.
        .env("HOME", dir);
    // Streams are set after this step, which forgets any that were set before.
    let mut command = Command::from(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(programme.as_bytes()).await?;
        input.close().await?;
    }
    let output = child.output().await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn programme(queues: &[&String]) -> String {
    let queues: Vec<String> = queues
        .iter()
        .map(|queue| format!("<<\"{queue}\">>"))
        .collect();
    PROGRAMME
        .replace("MESSAGES", &MESSAGES_MAX.to_string())
        .replace("MILLISECONDS", &QUEUE_MS_MAX.to_string())
        .replace("QUEUES", &format!("[{}]", queues.join(", ")))
}

/// Whether a queue's name can stand in a programme as it is.
fn is_plain(queue: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    queue.chars().all(plain)
}

/// `{ok, [{all, ["id", …]}, …]}`, one pair per queue, newest message first.
fn parse(answer: &str) -> Option<Snapshot> {
    let mut rest = answer.trim().strip_prefix("{ok, [")?;
    let mut whole = true;
    let mut queues = Vec::new();
    while let Some(begin) = rest.find('{') {
        let pair = &rest[begin + 1..];
        let (word, list) = pair.split_once(", [")?;
        whole &= match word {
            "all" => true,
            "more" => false,
            _ => return None,
        };
        let (list, after) = list.split_once("]}")?;
        let mut ids: Vec<String> = list
            .split(", ")
            .filter_map(|id| id.strip_prefix('"')?.strip_suffix('"'))
            .map(str::to_owned)
            .collect();
        ids.reverse();
        queues.push(ids);
        rest = after;
    }
    let [retry_high, retry, high, normal]: [Vec<String>; 4] = queues.try_into().ok()?;
    Some(Snapshot {
        ready: [high, normal].concat(),
        retry: [retry_high, retry].concat(),
        whole,
    })
}

fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_s_answer_is_read_oldest_first() {
        let answer = r#"{ok, [{all, []}, {all, ["r"]}, {all, ["u"]}, {more, ["b", "a"]}]}"#;
        let seen = parse(answer).expect("an answer");
        assert_eq!(seen.ready, ["u", "a", "b"]);
        assert_eq!((seen.retry.len(), seen.whole), (1, false));
        let empty =
            parse("{ok, [{all, []}, {all, []}, {all, []}, {all, []}]}\n").expect("an answer");
        assert_eq!((empty.ready.len(), empty.whole), (0, true));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for wrong in [
            "",
            "{error, \"*** eval\"}",
            "{ok, [{all, []}]}",
            "{ok, [{odd, []}, {all, []}, {all, []}, {all, []}]}",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_that_could_be_more_than_a_name_is_not_used() {
        assert!(is_plain("sluice.0196-a.jobs.high"));
        assert!(!is_plain("sluice.\">>], halt().jobs"));
        let programme = programme(&[&"a".to_owned(), &"b".to_owned()]);
        assert!(programme.contains("[<<\"a\">>, <<\"b\">>]"), "{programme}");
    }
}
