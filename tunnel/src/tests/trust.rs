//! The messages of a CA's rotation, byte by byte.

use prost::Message as _;

use crate::{
    AgentMessage, Hello, HubMessage, Roots, Trusts,
    wire::message::{FromAgent, FromHub},
};

fn of_agent(message: AgentMessage) -> Vec<u8> {
    FromAgent { message: Some(message), ..FromAgent::default() }.encode_to_vec()
}

#[test]
fn roots_and_what_is_kept_of_them_are_the_bytes_that_they_always_were() {
    let roots = Roots { pem: "p".into(), retired: vec!["r".into()], renew_within: 7 };
    let sent = FromHub { message: Some(HubMessage::Roots(roots)), ..FromHub::default() }.encode_to_vec();
    assert_eq!(sent, b"\x2a\x08\x0a\x01p\x12\x01r\x18\x07");
    let kept = Trusts { pins: vec!["a".into(), "b".into()], issuer: "b".into() };
    assert_eq!(of_agent(AgentMessage::Trusts(kept)), b"\x32\x09\x0a\x01a\x0a\x01b\x12\x01b");
    let hello = Hello { trusts: vec!["a".into()], ..Hello::default() };
    assert_eq!(of_agent(AgentMessage::Hello(hello)), b"\x0a\x03\x32\x01a");
}

#[test]
fn an_agent_of_before_says_nothing_of_roots() {
    let hello = FromAgent::decode(&b"\x0a\x03\x0a\x011"[..]).unwrap().message;
    let Some(AgentMessage::Hello(hello)) = hello else { panic!("{hello:?}") };
    assert!(hello.trusts.is_empty() && hello.version == "1");
}
