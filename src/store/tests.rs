//! The store by its own door, on a file in a scratch directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::Connection;

use crate::shutdown::{Shutdown, Tasks};
use crate::store::directory::{Pool, Project};
use crate::store::jobs::{Ending, Filter, JobWrite, LogLine, Progress, Spec, State};
use crate::store::{Error, Store, retention};

const PATIENCE: Duration = Duration::from_secs(20);

struct Open {
    store: Store,
    tasks: Tasks,
}

#[async_std::test]
async fn keys_from_before_there_were_scopes_keep_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut connection = sqlx::SqliteConnection::connect_with(&options)
        .await
        .expect("a database");
    let mut before = sqlx::migrate!("src/store/migrations");
    before.migrations.to_mut().retain(|it| it.version < 33);
    before.run(&mut connection).await.expect("migrated");
    let old = "INSERT INTO api_keys (id, name, hash, projects, created_us) \
               VALUES ('k', 'old', 'h', '[\"p\"]', 1)";
    sqlx::query(old)
        .execute(&mut connection)
        .await
        .expect("inserted");
    connection.close().await.expect("closed");
    let open = Open::at(&path).await;
    let keys = open.store.directory().await.expect("read").keys;
    assert_eq!((keys[0].name.as_str(), &keys[0].scopes), ("old", &None));
    assert_eq!(keys[0].projects, Some(vec!["p".to_owned()]));
    open.close().await;
}

impl Open {
    async fn at(path: &std::path::Path) -> Self {
        let (store, writer) = Store::open(path).await.expect("opened");
        let tasks = Tasks::new("test", Shutdown::new());
        tasks.spawn("store", writer.run());
        Self { store, tasks }
    }

    async fn close(self) {
        self.store.close();
        self.tasks.join().await;
    }

    /// Applies writes and waits for their commit.
    async fn commit(&self, writes: Vec<JobWrite>) {
        let (told, committed) = async_std::channel::bounded(1);
        self.store.apply(writes, move || {
            let _ = told.try_send(());
        });
        async_std::future::timeout(PATIENCE, committed.recv())
            .await
            .expect("committed in time")
            .expect("committed");
    }
}

fn spec(seq: i64) -> Arc<Spec> {
    Arc::new(Spec {
        replay_of: None,
        seq,
        id: format!("job-{seq}"),
        pool: "pool".into(),
        project: "project".into(),
        kind: "evaluate".into(),
        high: seq % 2 == 0,
        identity: r#"{"flow":{"flow":"f"}}"#.into(),
        block: None,
        timeout_ms: 1_000,
        expires_ms: Some(5),
        created_us: 10 + u64::try_from(seq).expect("positive"),
        purpose: None,
    })
}

fn create(seq: i64) -> JobWrite {
    JobWrite::Create {
        spec: spec(seq),
        progress: Progress::queued(),
        payload: Arc::new(format!("payload {seq}").into_bytes()),
    }
}

fn end(seq: i64, finished_us: u64) -> JobWrite {
    JobWrite::End {
        seq,
        progress: Progress {
            state: State::Succeeded,
            dispatch: 1,
            delivery: 2,
            worker: Some("w".into()),
            origin: Some("warm"),
            finished_us: Some(finished_us),
            ..Progress::queued()
        },
        ending: Ending {
            outcome: Arc::new(br#"{"result":1}"#.to_vec()),
            hops: "{}".into(),
            log_bytes_dropped: 3,
            sdk_calls: 4,
        },
    }
}

#[async_std::test]
async fn what_was_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s.db");
    let open = Open::at(&path).await;
    assert_eq!(open.store.next_seq().await.expect("read"), 1);
    open.commit((1..=100).map(create).collect()).await;
    open.commit((1..=40).map(|seq| end(seq, 50)).collect())
        .await;
    open.close().await;

    let open = Open::at(&path).await;
    assert_eq!(open.store.next_seq().await.expect("read"), 101);
    let live = open.store.live_jobs().await.expect("read");
    let seqs: Vec<_> = live.iter().map(|(spec, _)| spec.seq).collect();
    assert_eq!(seqs, (41..=100).collect::<Vec<_>>());
    assert_eq!(live[0].0, *spec(41));
    let job = open.store.job("job-7").await.expect("read").expect("there");
    assert_eq!(
        JobWrite::End {
            seq: 7,
            progress: job.progress,
            ending: job.ending.expect("ended")
        }
        .to_owned_parts(),
        end(7, 50).to_owned_parts()
    );
    assert_eq!(
        open.store.payload(9).await.expect("read"),
        Some(b"payload 9".to_vec())
    );
    let filter = Filter {
        projects: Some(vec!["project".into()]),
        state: Some(State::Succeeded),
        before: Some(30),
        limit: 2,
        ..Filter::default()
    };
    let listed = open.store.jobs(&filter).await.expect("read");
    assert_eq!(
        listed.iter().map(|(spec, _)| spec.seq).collect::<Vec<_>>(),
        [29, 28]
    );
    open.close().await;
}

#[async_std::test]
async fn many_writers_share_commits_and_each_is_told_after_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = Open::at(&dir.path().join("s.db")).await;
    let told = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    for seq in 1..=2_000 {
        let (store, told) = (open.store.clone(), told.clone());
        store.apply(vec![create(seq)], move || {
            let before = told.fetch_add(1, Ordering::SeqCst);
            assert_eq!(
                i64::try_from(before).expect("small") + 1,
                seq,
                "in the order of the calls"
            );
        });
    }
    open.commit(Vec::new()).await;
    assert_eq!(told.load(Ordering::SeqCst), 2_000);
    assert!(started.elapsed() < PATIENCE);
    assert_eq!(open.store.live_jobs().await.expect("read").len(), 2_000);
    open.close().await;
}

#[async_std::test]
async fn a_later_progress_replaces_an_earlier_one_even_within_a_commit() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = Open::at(&dir.path().join("s.db")).await;
    let at = |state, dispatch| JobWrite::Update {
        seq: 1,
        progress: Progress {
            state,
            dispatch,
            ..Progress::queued()
        },
    };
    open.commit(vec![
        create(1),
        at(State::Dispatched, 1),
        at(State::Queued, 1),
        at(State::Dispatched, 2),
    ])
    .await;
    let progress = open
        .store
        .job("job-1")
        .await
        .expect("read")
        .expect("there")
        .progress;
    assert_eq!((progress.state, progress.dispatch), (State::Dispatched, 2));
    let accepted = Progress {
        state: State::Accepted,
        dispatch: 2,
        ..Progress::queued()
    };
    open.store.apply_lazily(1, accepted);
    open.close().await;
    let open = Open::at(&dir.path().join("s.db")).await;
    let progress = open
        .store
        .job("job-1")
        .await
        .expect("read")
        .expect("there")
        .progress;
    assert_eq!(
        progress.state,
        State::Accepted,
        "what is lazy is not lost at a drain"
    );
    open.close().await;
}

#[async_std::test]
async fn a_change_that_fails_does_not_harm_its_neighbours() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = Open::at(&dir.path().join("s.db")).await;
    let project = |id: &str, name: &str| Project {
        id: id.into(),
        name: name.into(),
        created_us: 1,
    };
    let results = futures::join!(
        open.store.create_project(project("1", "one")),
        open.store.create_project(project("2", "one")),
        open.store.create_project(project("3", "three")),
        open.commit(vec![create(1)]),
    );
    assert!(results.0.is_ok() && results.2.is_ok());
    assert!(
        matches!(&results.1, Err(Error::Taken(sentence)) if sentence.contains("`one`")),
        "{:?}",
        results.1
    );
    assert!(matches!(
        open.store.delete_key("none").await,
        Err(Error::Missing(_))
    ));
    let directory = open.store.directory().await.expect("read");
    let names: Vec<_> = directory
        .projects
        .iter()
        .map(|project| project.name.as_str())
        .collect();
    assert_eq!(names, ["one", "three"]);
    open.close().await;
}

#[async_std::test]
async fn a_store_that_cannot_write_says_so_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s.db");
    let open = Open::at(&path).await;
    open.commit(vec![create(1)]).await;
    let mut stranger = sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display()))
        .await
        .expect("opened");
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut stranger)
        .await
        .expect("locked");
    let told = Arc::new(AtomicUsize::new(0));
    let tell = told.clone();
    open.store.apply(vec![create(2)], move || {
        tell.fetch_add(1, Ordering::SeqCst);
    });
    let started = Instant::now();
    while open.store.trouble().is_none() {
        assert!(started.elapsed() < PATIENCE, "no trouble is told");
        async_std::task::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        told.load(Ordering::SeqCst),
        0,
        "nothing is answered before its commit"
    );
    sqlx::query("ROLLBACK")
        .execute(&mut stranger)
        .await
        .expect("unlocked");
    open.commit(Vec::new()).await;
    assert_eq!(told.load(Ordering::SeqCst), 1);
    assert_eq!(open.store.trouble(), None);
    assert!(open.store.job("job-2").await.expect("read").is_some());
    open.close().await;
}

#[async_std::test]
async fn what_is_old_or_too_much_goes_with_all_it_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = Open::at(&dir.path().join("s.db")).await;
    let line = |seq| LogLine {
        job: seq,
        dispatch: 1,
        delivery: 1,
        line: 0,
        at_us: 1,
        level: "info".into(),
        text: "x".into(),
    };
    open.commit((1..=10).map(create).collect()).await;
    open.commit(
        (2..=10)
            .map(|seq| end(seq, u64::try_from(seq * 100).expect("positive")))
            .collect(),
    )
    .await;
    open.commit(vec![JobWrite::Log((1..=10).map(line).collect())])
        .await;
    let limits = |age_us, jobs_max, bytes_max| retention::Limits {
        age_us,
        jobs_max,
        bytes_max,
    };
    // Finished before 1,000 − 600: jobs 2 and 3. Job 1 lives and stays whatever its age.
    let swept = open
        .store
        .sweep_jobs(limits(600, 1_000, u64::MAX), 1_000)
        .await;
    assert_eq!(swept.expect("swept"), 2);
    let swept = open
        .store
        .sweep_jobs(limits(u64::MAX, 5, u64::MAX), 1_000)
        .await;
    assert_eq!(
        swept.expect("swept"),
        2,
        "jobs 4 and 5 are not among the newest five"
    );
    let left: Vec<_> = open
        .store
        .jobs(&Filter {
            limit: 100,
            ..Filter::default()
        })
        .await
        .expect("read")
        .iter()
        .map(|(spec, _)| spec.seq)
        .collect();
    assert_eq!(left, [10, 9, 8, 7, 6, 1]);
    assert_eq!(open.store.log(5, 0, 10).await.expect("read"), []);
    assert_eq!(open.store.payload(5).await.expect("read"), None);
    assert_eq!(open.store.log(1, 0, 10).await.expect("read").len(), 1);
    let swept = open
        .store
        .sweep_jobs(limits(u64::MAX, 1_000, 1), 1_000)
        .await;
    assert_eq!(
        swept.expect("swept"),
        5,
        "over the size every finished job may go"
    );
    open.close().await;
}

#[async_std::test]
async fn a_pool_and_its_token_come_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = Open::at(&dir.path().join("s.db")).await;
    let pool = Pool {
        id: "p".into(),
        name: "p".into(),
        is_default: false,
        created_us: 1,
    };
    open.store
        .create_pool(pool, "one".into())
        .await
        .expect("made");
    open.store
        .rotate_pool_token("p", "two".into(), 50, 0)
        .await
        .expect("rotated");
    open.store
        .rotate_pool_token("p", "three".into(), 90, 0)
        .await
        .expect("rotated");
    let mut tokens: Vec<_> = open
        .store
        .directory()
        .await
        .expect("read")
        .tokens
        .into_iter()
        .map(|token| (token.hash, token.valid_until_ms))
        .collect();
    tokens.sort();
    // A second rotation never lengthens the life of a token that is on its way out.
    let want = [("one", Some(50)), ("three", None), ("two", Some(90))];
    assert_eq!(tokens, want.map(|(hash, until)| (hash.to_owned(), until)));
    // Once they have ended, the oldest are forgotten; the valid one never is.
    let mut forgotten = Vec::new();
    for n in 0..30 {
        let rotated = open
            .store
            .rotate_pool_token("p", format!("next-{n}"), 100 + n, 100 + n);
        forgotten.extend(rotated.await.expect("rotated"));
    }
    let kept = open.store.directory().await.expect("read").tokens;
    assert_eq!((kept.len(), forgotten.len()), (21, 12));
    assert!(forgotten.contains(&"one".to_owned()), "{forgotten:?}");
    assert!(kept.iter().any(|token| token.valid_until_ms.is_none()));
    open.close().await;
}

impl JobWrite {
    /// For comparing.
    fn to_owned_parts(&self) -> Option<(i64, Progress, Ending)> {
        match self {
            Self::End {
                seq,
                progress,
                ending,
            } => Some((*seq, progress.clone(), ending.clone())),
            _ => None,
        }
    }
}
