//! Bearer secrets: how a token is drawn, written, taken apart, hashed and compared.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a token is for. The prefix lets people and secret scanners tell one from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// `cpj-…`: an agent's permission to ask to join.
    Join,
    /// `cpu-…`: a user's password.
    User,
}

/// A new token: the text is shown once, the hash is kept.
#[derive(Debug)]
pub(crate) struct DrawnToken {
    pub(crate) id: String,
    pub(crate) hash: SecretHash,
    pub(crate) text: SecretString,
}

/// A token's text taken apart. Not yet proven to be anybody's.
pub(crate) struct PresentedToken<'a> {
    pub(crate) id: &'a str,
    secret: &'a str,
}

/// SHA-256 of a secret. A fast hash is enough, since the secret is 256 random bits and not a password.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

const ID_LENGTH: usize = 10;
const ID_ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// 32 bytes in unpadded base64.
const SECRET_LENGTH: usize = 43;

impl TokenKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Join => "cpj-",
            Self::User => "cpu-",
        }
    }
}

/// Whether a text is a user's token, good or not: no other system's begins like it.
pub fn is_user_token(text: &str) -> bool {
    text.starts_with(TokenKind::User.prefix())
}

/// The id in a join token's text, whether or not its secret is right; `None` when it has not the form of one.
pub fn join_token_id(text: &str) -> Option<&str> {
    PresentedToken::parse(TokenKind::Join, text).map(|presented| presented.id)
}

impl DrawnToken {
    /// Draws a token from the operating system's randomness.
    pub(crate) fn draw(kind: TokenKind) -> Self {
        let id: String =
            (0..ID_LENGTH).map(|_| char::from(ID_ALPHABET[rand::random_range(0..ID_ALPHABET.len())])).collect();
        let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        Self { hash: SecretHash::of(&secret), text: SecretString::from(format!("{}{id}.{secret}", kind.prefix())), id }
    }
}

impl<'a> PresentedToken<'a> {
    /// Takes a token's text apart; `None` when it is not of that form.
    pub(crate) fn parse(kind: TokenKind, text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(kind.prefix())?.split_once('.')?;
        let well_formed = id.len() == ID_LENGTH
            && id.bytes().all(|byte| ID_ALPHABET.contains(&byte))
            && secret.len() == SECRET_LENGTH;
        well_formed.then_some(Self { id, secret })
    }

    /// Whether this is the secret that was hashed, in a time that tells nothing about where it differs.
    pub(crate) fn matches(&self, hash: &SecretHash) -> bool {
        SecretHash::of(self.secret).0.ct_eq(&hash.0).into()
    }
}

impl SecretHash {
    fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

impl Serialize for SecretHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(de::Error::custom)?;
        let hash = bytes.try_into().map_err(|_| de::Error::custom("a hash has 32 bytes"))?;
        Ok(Self(hash))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_drawn_token_is_recognised_by_its_hash_alone() {
        let drawn = DrawnToken::draw(TokenKind::Join);
        let text = drawn.text.expose_secret();
        let presented = PresentedToken::parse(TokenKind::Join, text).unwrap();
        assert_eq!(presented.id, drawn.id);
        assert!(presented.matches(&drawn.hash));
        assert!(!presented.matches(&DrawnToken::draw(TokenKind::Join).hash));
    }

    #[test]
    fn a_token_of_the_other_kind_is_no_token() {
        let drawn = DrawnToken::draw(TokenKind::User);
        assert!(PresentedToken::parse(TokenKind::Join, drawn.text.expose_secret()).is_none());
        assert!(PresentedToken::parse(TokenKind::User, drawn.text.expose_secret()).is_some());
    }

    #[test]
    fn debug_shows_neither_secret_nor_hash() {
        let drawn = DrawnToken::draw(TokenKind::User);
        let shown = format!("{drawn:?}");
        assert!(!shown.contains(&drawn.text.expose_secret()[15..]));
        assert!(!shown.contains(&serde_json::to_string(&drawn.hash).unwrap().replace('"', "")));
    }

    #[test]
    fn a_hash_survives_json() {
        let hash = DrawnToken::draw(TokenKind::Join).hash;
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<SecretHash>(&json).unwrap(), hash);
        assert!(serde_json::from_str::<SecretHash>("\"AAAA\"").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,80}") {
            let _ = PresentedToken::parse(TokenKind::Join, &text);
            let _ = PresentedToken::parse(TokenKind::User, &format!("cpu-{text}"));
        }
    }
}
