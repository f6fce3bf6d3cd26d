//! The one page there is: who asks, for what, and a field for an API key. No
//! script, nothing from anywhere else, never inside another site's frame.

use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::oauth::ask::Ask;
use crate::gateway::oauth::redirect;
use crate::gateway::scopes::Scopes;
use crate::gateway::secrets;

/// The cookie that ties an answer to the browser that was asked.
pub const COOKIE: &str = "sluice_login";
/// How long the cookie lives, in seconds: as long as the page may be answered.
const COOKIE_S: u32 = 600;

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:34em;margin:4em auto;padding:0 1em}\
input{width:100%;font:inherit;padding:.4em;box-sizing:border-box}\
button{font:inherit;padding:.4em 1em;margin:1em 1em 0 0}.wrong{color:#a00}";

pub struct Page<'a> {
    pub ask: &'a Ask,
    pub scopes: &'a Scopes,
    pub sealed: &'a str,
    /// What was wrong with the answer before.
    pub complaint: Option<&'a str>,
    pub is_secure: bool,
}

// === impl Page ===

impl Page<'_> {
    /// With a new number for the browser, or with the one that it has.
    pub fn reply(&self, browser: Option<&str>) -> Result<Reply, ApiError> {
        let client = redirect::loopback(&self.ask.redirect_uri);
        let client = client.map(|url| url.origin().ascii_serialization());
        let client = client.unwrap_or_default();
        let rights = self.scopes.iter().map(|scope| {
            format!(
                "<li>{} (<code>{}</code>)</li>",
                scope.sentence(),
                scope.as_str()
            )
        });
        let complaint = self.complaint.map_or_else(String::new, |complaint| {
            format!(
                "<p class=\"wrong\" role=\"alert\">{}</p>",
                escaped(complaint)
            )
        });
        let body = format!(
            "<h1>Let a program in?</h1>\
             <p>A program on your machine at <code>{client}</code> calls itself \
             <b>{name}</b> and asks to</p><ul>{rights}</ul>\
             <p>within the projects of the API key that you paste here. The key itself \
             stays with the gateway. Go on only if you have started that login yourself \
             a moment ago.</p>{complaint}\
             <form method=\"post\" action=\"authorize\">\
             <input type=\"hidden\" name=\"request\" value=\"{sealed}\">\
             <label>API key <input type=\"password\" name=\"key\" autocomplete=\"off\" \
             autofocus></label>\
             <button name=\"answer\" value=\"yes\">Let it in</button>\
             <button name=\"answer\" value=\"no\">Refuse</button></form>",
            name = escaped(&self.ask.name),
            rights = rights.collect::<String>(),
            sealed = escaped(self.sealed),
        );
        let status = if self.complaint.is_some() { 403 } else { 200 };
        // Browsers hold the redirect after a form to this list, too.
        let mut reply = page(status, &body, &format!("'self' {client}"))?;
        if let Some(browser) = browser {
            let secure = if self.is_secure { "; Secure" } else { "" };
            let cookie = format!(
                "{COOKIE}={browser}; Max-Age={COOKIE_S}; HttpOnly; SameSite=Strict{secure}"
            );
            reply.headers.push(("set-cookie".to_owned(), cookie));
        }
        Ok(reply)
    }
}

/// A page that says what is wrong and leads nowhere.
pub fn wrong(sentence: &str) -> Reply {
    let body = format!(
        "<h1>This does not work</h1><p class=\"wrong\">{}</p>",
        escaped(sentence)
    );
    page(400, &body, "'none'").unwrap_or_else(|_| Reply::foreign(400, headers(), Vec::new()))
}

/// For everything a browser gets from here.
pub fn headers() -> Vec<(String, String)> {
    [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn page(status: u16, body: &str, forms: &str) -> Result<Reply, ApiError> {
    let nonce = secrets::token("")?;
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sluice</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <style nonce=\"{nonce}\">{STYLE}</style><body>{body}</body></html>"
    );
    let mut headers = headers();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; form-action {forms}; \
         frame-ancestors 'none'; base-uri 'none'"
    );
    headers.push(("content-security-policy".to_owned(), policy));
    Ok(Reply {
        status,
        headers,
        ..Reply::bytes(HTML, html.into_bytes())
    })
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
