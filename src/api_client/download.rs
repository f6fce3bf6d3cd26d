//! Downloads without credentials: an index, an archive.
//!
//! ```text
//!  address ─ permitted? ─▶ GET, If-None-Match ─▶ 304 ─▶ Unchanged
//!      ▲                        ├─▶ 301…308, at most 5 ─┐
//!      └────────────────────────┼───────────────────────┘
//!                               └─▶ 200, up to a size ─▶ Fresh
//! ```
//!
//! Where an address leads is decided by whoever wrote it, so the caller is asked
//! about each, redirections included. Owns no trust in what comes: the caller
//! compares it with a checksum.

use std::time::Duration;

use futures::AsyncReadExt;
use surf::StatusCode;
use url::Url;

use crate::api_client::transport::{self, Transport};
use crate::api_client::{BACKOFF, Error, shown};
use crate::backoff::jitter;
use crate::config::EgressConfig;
use crate::limit;

/// Redirections in a row: a release's file is two away.
const REDIRECTIONS_MAX: usize = 5;
/// Tries: the caller asks again by its own clock.
const TRIES: u32 = 3;
/// The longest ETag that is kept, in bytes.
const ETAG_BYTES_MAX: usize = 512;

/// What is asked for.
pub struct Download<'a> {
    pub url: &'a Url,
    /// What the server called the content that is known.
    pub etag: Option<&'a str>,
    pub bytes_max: usize,
    /// Of all tries and redirections together.
    pub limit: Duration,
    /// Whether this address may be asked, in a sentence if not.
    pub permits: &'a (dyn Fn(&Url) -> Result<(), String> + Sync),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Downloaded {
    /// It still is what the ETag names.
    Unchanged,
    Fresh {
        bytes: Vec<u8>,
        etag: Option<String>,
    },
}

enum Hop {
    To(Url),
    Arrived(Downloaded),
}

/// Downloads one file, leaving the host as `egress` says.
pub async fn download(egress: &EgressConfig, ask: &Download<'_>) -> Result<Downloaded, Error> {
    let work = async {
        let mut tried = 0;
        loop {
            let outcome = follow(egress, ask).await;
            tried += 1;
            match outcome {
                Err(error) if error.is_transient() && tried < TRIES => {}
                outcome => return outcome,
            }
            async_std::task::sleep(BACKOFF.delay(tried - 1, jitter())).await;
        }
    };
    limit::timeout(ask.limit, work).await.unwrap_or_else(|_| {
        Err(Error::TimedOut {
            what: what(ask.url),
            limit_s: ask.limit.as_secs(),
        })
    })
}

async fn follow(egress: &EgressConfig, ask: &Download<'_>) -> Result<Downloaded, Error> {
    let mut url = ask.url.clone();
    for _ in 0..=REDIRECTIONS_MAX {
        (ask.permits)(&url).map_err(|why| Error::Invalid {
            what: what(&url),
            why,
        })?;
        match hop(egress, &url, ask).await? {
            Hop::To(next) => url = next,
            Hop::Arrived(there) => return Ok(there),
        }
    }
    Err(Error::Invalid {
        what: what(ask.url),
        why: format!("it is redirected more than {REDIRECTIONS_MAX} times"),
    })
}

async fn hop(egress: &EgressConfig, url: &Url, ask: &Download<'_>) -> Result<Hop, Error> {
    let what = what(url);
    let transport = Transport::new(url, egress).map_err(|why| Error::Setup {
        what: what.clone(),
        why,
    })?;
    let mut request = surf::Request::new(surf::http::Method::Get, url.clone());
    request.insert_header("accept", "*/*");
    request.insert_header("user-agent", concat!("sluice/", env!("CARGO_PKG_VERSION")));
    if let Some(etag) = ask.etag {
        request.insert_header("if-none-match", etag);
    }
    let client = surf::Client::with_http_client(transport);
    let response = client.send(request).await;
    let mut response = response.map_err(|error| transport::explain(&what, ask.limit, &error))?;
    let status = response.status();
    if status == StatusCode::NotModified && ask.etag.is_some() {
        return Ok(Hop::Arrived(Downloaded::Unchanged));
    }
    if status.is_redirection() {
        let next = response.header("location").map(|value| value.as_str());
        let next = next.and_then(|text| url.join(text).ok());
        let why = "it is redirected to no address".to_owned();
        return next.map(Hop::To).ok_or(Error::Invalid { what, why });
    }
    if status != StatusCode::Ok {
        return Err(Error::NotGiven {
            what,
            status: status.into(),
        });
    }
    let etag = response
        .header("etag")
        .map(|value| value.as_str().to_owned());
    let bytes_max = ask.bytes_max;
    if response
        .len()
        .is_some_and(|announced| announced > bytes_max)
    {
        return Err(Error::TooLarge { what, bytes_max });
    }
    // One byte over the limit tells that there is more, whatever was announced.
    let one_over = u64::try_from(bytes_max)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Vec::new();
    let mut body = response.take_body().take(one_over);
    let read = body.read_to_end(&mut bytes).await;
    read.map_err(|error| transport::explain_io(&what, ask.limit, &error))?;
    if bytes.len() > bytes_max {
        return Err(Error::TooLarge { what, bytes_max });
    }
    let etag = etag.filter(|etag| etag.len() <= ETAG_BYTES_MAX);
    Ok(Hop::Arrived(Downloaded::Fresh { bytes, etag }))
}

fn what(url: &Url) -> String {
    format!("Downloading {}", shown(url))
}
