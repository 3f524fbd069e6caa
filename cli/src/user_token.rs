//! `user token`: the tokens of a user, each with a name and an end.

use std::time::Duration;

use certs::UserName;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use registry::api::{NewUserToken, UserTokenCreated, UserTokenList, UserTokenView};
use secrecy::ExposeSecret;

use crate::{
    api::Api,
    duration,
    failure::Failure,
    output::{self, note, print, print_json},
    quantity,
    table::{Cell, Table},
};

#[derive(Debug, Subcommand)]
pub(crate) enum UserTokenCommand {
    /// Make a token of a user, and print it: it is shown this once
    Create(Create),
    /// List the tokens of a user, without their secrets
    List(List),
    /// Delete tokens of a user: what was opened with them is cut
    Delete(Delete),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    (umask 077; cluster-proxy user token create alice --name laptop --validity 30d > laptop.token)")]
pub(crate) struct Create {
    #[arg(value_name = "USER")]
    user: UserName,
    /// What to call it, to tell it from the user's others
    #[arg(long, short, value_name = "NAME")]
    name: String,
    /// How long it is good for: a year at most
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = duration::parse)]
    validity: Duration,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cluster-proxy user token list alice")]
pub(crate) struct List {
    #[arg(value_name = "USER")]
    user: UserName,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cluster-proxy user token delete alice laptop")]
pub(crate) struct Delete {
    #[arg(value_name = "USER")]
    user: UserName,
    /// Name or id, as in 'cluster-proxy user token list'
    #[arg(required = true, value_name = "TOKEN", value_parser = token_name)]
    tokens: Vec<String>,
}

impl UserTokenCommand {
    pub(crate) async fn run(&self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(api).await,
            Self::List(list) => list.run(api).await,
            Self::Delete(delete) => delete.run(api).await,
        }
    }
}

impl Create {
    async fn run(&self, api: &Api) -> Result<(), Failure> {
        let new = NewUserToken { name: self.name.clone(), validity_seconds: self.validity.as_secs() };
        let created: UserTokenCreated = api.post(&format!("/v1/users/{}/tokens", self.user), &new).await?;
        let until = created.view.expires_at.map(|end| format!(" is good until {end}")).unwrap_or_default();
        note(format!("token {} of {}{until}", created.view.name, self.user));
        print(created.token.expose_secret())
    }
}

impl List {
    async fn run(&self, api: &Api) -> Result<(), Failure> {
        let tokens: UserTokenList = api.get(&format!("/v1/users/{}/tokens", self.user)).await?;
        if self.json {
            return print_json(&tokens);
        }
        if tokens.items.is_empty() {
            note(format!("{0} has no tokens; 'cluster-proxy user token create {0} --name NAME' makes one.", self.user));
            return Ok(());
        }
        print(table(&tokens.items, Timestamp::now()).render())
    }
}

impl Delete {
    async fn run(&self, api: &Api) -> Result<(), Failure> {
        for token in &self.tokens {
            api.delete(&format!("/v1/users/{}/tokens/{token}", self.user)).await?;
            print(format!("token/{}/{token} deleted", self.user))?;
        }
        Ok(())
    }
}

/// The name or id, also of a whole token that was pasted: its secret must not travel in a path, and from there into logs.
fn token_name(text: &str) -> Result<String, String> {
    let pasted = text.strip_prefix("cpu-").and_then(|token| token.split_once('.'));
    let name = pasted.map_or(text, |(id, _)| id);
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.is_empty() && name.bytes().all(inner) {
        return Ok(name.to_owned());
    }
    Err("a name is made of letters, digits, '-', '_' and '.'; 'cluster-proxy user token list' shows them".into())
}

fn table(tokens: &[UserTokenView], now: Timestamp) -> Table {
    let mut table = Table::new(&["NAME", "ID", "STATE", "AGE"]);
    for token in tokens {
        table.row([
            token.name.as_str().into(),
            token.id.as_str().into(),
            state(token, now),
            token.created_at.map(|then| quantity::age(then, now)).unwrap_or_default().into(),
        ]);
    }
    table
}

fn state(token: &UserTokenView, now: Timestamp) -> Cell {
    match token.expires_at {
        None => Cell::styled("has no end", output::WAITING),
        Some(end) if end <= now => Cell::styled(format!("ended {} ago", quantity::age(end, now)), output::BAD),
        Some(end) => Cell::styled(format!("good for {}", quantity::age(now, end)), output::GOOD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_tokens_secret_goes_nowhere() {
        assert_eq!(token_name("laptop").as_deref(), Ok("laptop"));
        assert_eq!(token_name("cpu-4rj2k0q8xz.hush").as_deref(), Ok("4rj2k0q8xz"));
        assert!(token_name("../alice").is_err());
    }

    #[test]
    fn a_token_is_good_ended_or_of_before_there_were_ends() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut token = UserTokenView {
            id: "4rj2k0q8xz".into(),
            name: "laptop".into(),
            expires_at: Some(second(90)),
            created_at: Some(second(0)),
        };
        let shown = |token: &UserTokenView, now| {
            let rendered = table(std::slice::from_ref(token), second(now)).render();
            anstream::adapter::strip_str(&rendered).to_string().lines().nth(1).unwrap().to_owned()
        };
        assert_eq!(shown(&token, 30), "laptop   4rj2k0q8xz   good for 60s   30s");
        assert_eq!(shown(&token, 100), "laptop   4rj2k0q8xz   ended 10s ago   100s");
        token.expires_at = None;
        assert!(shown(&token, 30).contains("has no end"));
    }
}
