//! etcd's messages, as its `.proto` files in `store/proto` say, and which request is sent where.
//!
//! Made ahead, so that nobody needs a compiler of protobuf: `cargo run --manifest-path store/proto/Cargo.toml`.

#![allow(
    clippy::enum_variant_names,
    clippy::use_self,
    dead_code,
    unreachable_pub,
    unnameable_types,
    reason = "made by prost, and more than is used yet"
)]

#[rustfmt::skip]
pub(super) mod etcdserverpb;
#[rustfmt::skip]
pub(super) mod mvccpb;

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    const SOURCES: [&[u8]; 2] =
        [include_bytes!("../../proto/mvccpb/kv.proto"), include_bytes!("../../proto/etcdserverpb/rpc.proto")];

    #[test]
    fn what_was_made_of_the_proto_files_is_current_and_unedited() {
        for made in [include_str!("proto/mvccpb.rs"), include_str!("proto/etcdserverpb.rs")] {
            let [_, second, code] = made.splitn(3, '\n').collect::<Vec<_>>().try_into().unwrap();
            let mut digest = Sha256::new();
            SOURCES.iter().for_each(|source| digest.update(source));
            digest.update(code);
            let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(second.ends_with(&digest), "run `cargo run --manifest-path store/proto/Cargo.toml`");
        }
    }
}
