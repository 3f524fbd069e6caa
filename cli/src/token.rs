//! `token`: what clusters join with.

use std::time::Duration;

use certs::ClusterName;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use registry::api::{NewToken, TokenCreated, TokenList, TokenView};
use secrecy::ExposeSecret;

use crate::{
    api::{Api, CallError},
    duration,
    failure::Failure,
    output::{self, note, print, print_json},
    quantity,
    table::{Cell, Table},
};

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, and print it: it is shown this once
    Create(Create),
    /// List the tokens, without their secrets
    List(List),
    /// Delete tokens: nobody joins with them any more
    Delete(Delete),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cluster-proxy token create --cluster edge-1 --auto-accept\n  \
    cluster-proxy token create --reusable --ttl 24h")]
pub(crate) struct Create {
    /// The only cluster that may join with it [default: any name]
    #[arg(long, short, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// Accept agents that join with it automatically
    #[arg(long)]
    auto_accept: bool,
    /// Any number of agents may join with it, not one
    #[arg(long)]
    reusable: bool,
    /// How long it is good for
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    ttl: Duration,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cluster-proxy token list")]
pub(crate) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cluster-proxy token delete 4rj2k0q8xz")]
pub(crate) struct Delete {
    /// As in 'cluster-proxy token list'
    #[arg(required = true, value_name = "ID", value_parser = token_id)]
    ids: Vec<String>,
}

impl TokenCommand {
    pub(crate) async fn run(&self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(api).await,
            Self::List(list) => list.run(api).await,
            Self::Delete(delete) => delete.run(api).await,
        }
    }
}

/// Asks the hub for a token.
pub(crate) async fn create(api: &Api, new: &NewToken) -> Result<TokenCreated, CallError> {
    api.post("/v1/tokens", new).await
}

impl Create {
    async fn run(&self, api: &Api) -> Result<(), Failure> {
        let new = NewToken {
            cluster: self.cluster.clone(),
            auto_accept: self.auto_accept,
            reusable: self.reusable,
            ttl_seconds: self.ttl.as_secs(),
        };
        let created = create(api, &new).await?;
        note(format!("token {} is good until {}", created.view.id, created.view.expires_at));
        print(created.token.expose_secret())
    }
}

impl List {
    async fn run(&self, api: &Api) -> Result<(), Failure> {
        let tokens: TokenList = api.get("/v1/tokens").await?;
        if self.json {
            return print_json(&tokens);
        }
        if tokens.items.is_empty() {
            note("There are no tokens; 'cluster-proxy token create' makes one.");
            return Ok(());
        }
        print(table(&tokens.items, Timestamp::now()).render())
    }
}

impl Delete {
    async fn run(&self, api: &Api) -> Result<(), Failure> {
        for id in &self.ids {
            api.delete(&format!("/v1/tokens/{id}")).await?;
            print(format!("token/{id} deleted"))?;
        }
        Ok(())
    }
}

/// The id, also of a whole token that was pasted: its secret must not travel in a path, and from there into logs.
fn token_id(text: &str) -> Result<String, String> {
    let id = text.strip_prefix("cpj-").unwrap_or(text);
    let id = id.split_once('.').map_or(id, |(id, _)| id);
    if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(id.to_owned());
    }
    Err("an id is made of letters and digits; 'cluster-proxy token list' shows them".into())
}

fn table(tokens: &[TokenView], now: Timestamp) -> Table {
    let mut table = Table::new(&["ID", "CLUSTER", "AUTO-ACCEPT", "REUSABLE", "STATE", "CREATED BY", "AGE"]);
    for token in tokens {
        let cluster = token.cluster.as_ref().map_or("any", |cluster| cluster.as_ref());
        table.row([
            token.id.as_str().into(),
            cluster.into(),
            token.auto_accept.to_string().into(),
            token.reusable.to_string().into(),
            state(token, now),
            token.created_by.as_str().into(),
            quantity::age(token.created_at, now).into(),
        ]);
    }
    table
}

fn state(token: &TokenView, now: Timestamp) -> Cell {
    if let Some(token_use) = token.used_by.first() {
        return format!("used by {}/{}", token_use.cluster, token_use.agent).into();
    }
    if token.expires_at <= now {
        return Cell::styled("expired", output::BAD);
    }
    Cell::styled(format!("good for {}", quantity::age(now, token.expires_at)), output::GOOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_tokens_secret_goes_nowhere() {
        assert_eq!(token_id("4rj2k0q8xz").as_deref(), Ok("4rj2k0q8xz"));
        assert_eq!(token_id("cpj-4rj2k0q8xz.hush").as_deref(), Ok("4rj2k0q8xz"));
        assert!(token_id("../users/admin").is_err());
    }

    #[test]
    fn a_token_is_good_used_or_expired() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut token = TokenView {
            id: "a".into(),
            cluster: None,
            auto_accept: false,
            reusable: false,
            expires_at: second(3600),
            created_by: "admin".into(),
            created_at: second(0),
            used_by: Vec::new(),
        };
        assert_eq!(state(&token, second(600)), Cell::styled("good for 50m", output::GOOD));
        assert_eq!(state(&token, second(3600)), Cell::styled("expired", output::BAD));
        token.expires_at = second(0);
        assert!(table(&[token], second(1)).render().contains("any"));
    }
}
