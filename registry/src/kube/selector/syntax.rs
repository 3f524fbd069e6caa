//! The text form of label selectors: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`.

use std::collections::BTreeSet;

use super::SelectorError;
use super::requirement::{Operator, Requirement};
use crate::kube::label;

/// Reads a label selector's text.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    Parser { tokens: tokens(text), next: 0 }.selector().map_err(SelectorError::Syntax)
}

/// A word, or one of `( ) , ! = == != < >`. `in` and `notin` are words: where they stand decides what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let is_symbol = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let length = if rest.starts_with("==") || rest.starts_with("!=") {
            2
        } else if rest.starts_with(is_symbol) {
            1
        } else {
            rest.find(|c| is_space(c) || is_symbol(c)).unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at(length);
        tokens.push(if token.starts_with(is_symbol) { Token::Symbol(token) } else { Token::Word(token) });
        rest = after.trim_start_matches(is_space);
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
}

/// The message of an error.
type Parsed<T> = Result<T, String>;

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.next).copied().unwrap_or(Token::End)
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn selector(&mut self) -> Parsed<Vec<Requirement>> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Symbol("!") => {
                    let requirement =
                        self.requirement().map_err(|error| format!("unable to parse requirement: {error}"))?;
                    requirements.push(requirement);
                    match self.take() {
                        Token::End => return Ok(requirements),
                        Token::Symbol(",") => match self.peek() {
                            Token::Word(_) | Token::Symbol("!") => {}
                            other @ (Token::Symbol(_) | Token::End) => {
                                return Err(format!("found '{}', expected: identifier after ','", other.text()));
                            }
                        },
                        other @ (Token::Word(_) | Token::Symbol(_)) => {
                            return Err(format!("found '{}', expected: ',' or 'end of string'", other.text()));
                        }
                    }
                }
                Token::End => return Ok(requirements),
                other @ Token::Symbol(_) => {
                    return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text()));
                }
            }
        }
    }

    fn requirement(&mut self) -> Parsed<Requirement> {
        let negated = self.peek() == Token::Symbol("!");
        if negated {
            self.take();
        }
        let key = match self.take() {
            Token::Word(key) => key,
            other @ (Token::Symbol(_) | Token::End) => {
                return Err(format!("found '{}', expected: identifier", other.text()));
            }
        };
        let errors = label::key_errors(key);
        if !errors.is_empty() {
            // Kubernetes has no path here and says so.
            return Err(format!("<nil>: Invalid value: {key:?}: {}", errors.join("; ")));
        }
        let (operator, values) = match self.peek() {
            Token::End | Token::Symbol(",") if negated => (Operator::DoesNotExist, Vec::new()),
            Token::End | Token::Symbol(",") => (Operator::Exists, Vec::new()),
            // As in Kubernetes, `!a=b` is `a=b`.
            Token::Word(_) | Token::Symbol(_) => {
                let operator = self.operator()?;
                let values = match operator {
                    Operator::In | Operator::NotIn => self.values()?,
                    Operator::Equals
                    | Operator::NotEquals
                    | Operator::GreaterThan
                    | Operator::LessThan
                    | Operator::Exists
                    | Operator::DoesNotExist => vec![self.value()?],
                };
                (operator, values)
            }
        };
        Requirement::new(key, operator, values).map_err(|error| error.to_string())
    }

    fn operator(&mut self) -> Parsed<Operator> {
        match self.take() {
            Token::Word("in") => Ok(Operator::In),
            Token::Word("notin") => Ok(Operator::NotIn),
            Token::Symbol("=" | "==") => Ok(Operator::Equals),
            Token::Symbol("!=") => Ok(Operator::NotEquals),
            Token::Symbol(">") => Ok(Operator::GreaterThan),
            Token::Symbol("<") => Ok(Operator::LessThan),
            other @ (Token::Word(_) | Token::Symbol(_) | Token::End) => {
                Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.text()))
            }
        }
    }

    /// The value after `=`; nothing there is the empty value.
    fn value(&mut self) -> Parsed<String> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Word(value) => {
                self.take();
                Ok(value.to_owned())
            }
            other @ Token::Symbol(_) => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    /// The values of `in` and `notin`: `(a,b)`, sorted and each once. A missing value is the empty one: `(a,,b)`, `()`.
    fn values(&mut self) -> Parsed<Vec<String>> {
        let open = self.take();
        if open != Token::Symbol("(") {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        let first = self.peek();
        if !matches!(first, Token::Word(_) | Token::Symbol("," | ")")) {
            return Err(format!("found '{}', expected: ',', ')' or identifier", first.text()));
        }
        let mut values = BTreeSet::new();
        loop {
            let value = match self.peek() {
                Token::Word(value) => {
                    self.take();
                    value
                }
                Token::Symbol("," | ")") => "",
                other @ (Token::Symbol(_) | Token::End) => {
                    return Err(format!("found '{}', expected: ',', or identifier", other.text()));
                }
            };
            values.insert(value.to_owned());
            match self.take() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(values.into_iter().collect()),
                other @ (Token::Word(_) | Token::Symbol(_) | Token::End) => {
                    return Err(format!("found '{}', expected: ',' or ')'", other.text()));
                }
            }
        }
    }
}
