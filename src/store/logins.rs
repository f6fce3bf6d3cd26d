//! Logins of people's clients, and their tokens by their hashes.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::{Error, Store, Tx, int, uint};

#[derive(Debug, Clone)]
pub struct Login {
    pub id: String,
    /// Hash of the client's id.
    pub client: String,
    /// Id of the API key it stands on.
    pub api_key: String,
    /// As the protocol writes them: words with spaces between.
    pub scopes: String,
    pub created_ms: u64,
    /// Its end, however often its tokens are renewed.
    pub until_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Access,
    Refresh,
}

/// A token as it is stored.
#[derive(Debug, Clone)]
pub struct Token {
    pub hash: String,
    pub kind: Kind,
    pub until_ms: u64,
}

/// What became of a refresh token that was shown.
#[derive(Debug, Clone)]
pub enum Renewal {
    Renewed(Login),
    /// There is none such for this client now.
    Unknown,
    /// It was used before: one of two has stolen it, so the login is over.
    Replayed(String),
}

// === impl Kind ===

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Refresh => "refresh",
        }
    }
}

fn login(row: &SqliteRow) -> Result<Login, sqlx::Error> {
    Ok(Login {
        id: row.try_get("id")?,
        client: row.try_get("client")?,
        api_key: row.try_get("api_key")?,
        scopes: row.try_get("scopes")?,
        created_ms: uint(row.try_get("created_ms")?),
        until_ms: uint(row.try_get("until_ms")?),
    })
}

async fn insert_tokens(tx: &mut Tx, login: &str, tokens: &[Token]) -> Result<(), Error> {
    for token in tokens {
        sqlx::query("INSERT INTO login_tokens (hash, login, kind, until_ms) VALUES (?, ?, ?, ?)")
            .bind(&token.hash)
            .bind(login)
            .bind(token.kind.as_str())
            .bind(int(token.until_ms))
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

async fn delete(tx: &mut Tx, id: &str) -> Result<(), Error> {
    for text in [
        "DELETE FROM login_tokens WHERE login = ?",
        "DELETE FROM logins WHERE id = ?",
    ] {
        sqlx::query(text).bind(id).execute(&mut *tx).await?;
    }
    Ok(())
}

// === impl Store ===

impl Store {
    /// Makes a login; the oldest ones of its key end when there are `logins_max`.
    pub async fn create_login(
        &self,
        it: Login,
        tokens: [Token; 2],
        logins_max: u32,
    ) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                let old = sqlx::query(
                    "SELECT id FROM logins WHERE api_key = ? \
                     ORDER BY created_ms DESC, id DESC LIMIT -1 OFFSET ?",
                )
                .bind(&it.api_key)
                .bind(logins_max.saturating_sub(1))
                .fetch_all(&mut *c)
                .await?;
                for row in &old {
                    delete(&mut *c, row.try_get("id")?).await?;
                }
                sqlx::query(
                    "INSERT INTO logins (id, client, api_key, scopes, created_ms, until_ms) \
                     VALUES (?, ?, ?, ?, ?, ?)",
                )
                .bind(&it.id)
                .bind(&it.client)
                .bind(&it.api_key)
                .bind(&it.scopes)
                .bind(int(it.created_ms))
                .bind(int(it.until_ms))
                .execute(&mut *c)
                .await?;
                insert_tokens(c, &it.id, &tokens).await
            })
        })
        .await
    }

    /// The login that a token of this kind belongs to, and the token's end.
    pub async fn login_of(&self, hash: &str, kind: Kind) -> Result<Option<(Login, u64)>, Error> {
        let row = sqlx::query(
            "SELECT l.id, l.client, l.api_key, l.scopes, l.created_ms, l.until_ms, \
             t.until_ms AS token_until_ms FROM login_tokens t JOIN logins l ON l.id = t.login \
             WHERE t.hash = ? AND t.kind = ?",
        )
        .bind(hash)
        .bind(kind.as_str())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((login(&row)?, uint(row.try_get("token_until_ms")?))))
    }

    /// Spends a refresh token of a client and puts new tokens in its place,
    /// none of which outlives the login.
    pub async fn renew_login(
        &self,
        hash: String,
        client: String,
        tokens: [Token; 2],
        now_ms: u64,
    ) -> Result<Renewal, Error> {
        self.change(move |c| {
            Box::pin(async move {
                let row = sqlx::query(
                    "SELECT l.id, l.client, l.api_key, l.scopes, l.created_ms, l.until_ms, t.spent \
                     FROM login_tokens t JOIN logins l ON l.id = t.login \
                     WHERE t.hash = ? AND t.kind = 'refresh' AND t.until_ms > ? AND l.client = ?",
                )
                .bind(&hash)
                .bind(int(now_ms))
                .bind(&client)
                .fetch_optional(&mut *c)
                .await?;
                let Some(row) = row else {
                    return Ok(Renewal::Unknown);
                };
                let it = login(&row)?;
                if row.try_get("spent")? {
                    delete(&mut *c, &it.id).await?;
                    return Ok(Renewal::Replayed(it.id));
                }
                sqlx::query("UPDATE login_tokens SET spent = 1 WHERE hash = ?")
                    .bind(&hash)
                    .execute(&mut *c)
                    .await?;
                let tokens = tokens.map(|token| Token {
                    until_ms: token.until_ms.min(it.until_ms),
                    ..token
                });
                insert_tokens(c, &it.id, &tokens).await?;
                Ok(Renewal::Renewed(it))
            })
        })
        .await
    }

    /// Ends a login with all its tokens; one that is over already stays so.
    pub async fn delete_login(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.change(move |c| Box::pin(async move { delete(c, &id).await }))
            .await
    }

    /// Removes tokens that have ended, and logins without any.
    pub async fn sweep_logins(&self, now_ms: u64) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query("DELETE FROM login_tokens WHERE until_ms <= ?")
                    .bind(int(now_ms))
                    .execute(&mut *c)
                    .await?;
                sqlx::query(
                    "DELETE FROM logins WHERE NOT EXISTS \
                     (SELECT 1 FROM login_tokens t WHERE t.login = logins.id)",
                )
                .execute(&mut *c)
                .await?;
                Ok(())
            })
        })
        .await
    }
}
