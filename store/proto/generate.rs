//! Makes the store's `src/etcd/proto/` of etcd's messages, without protoc.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use prost_build::{Config, Module, Service, ServiceGenerator};
use sha2::{Digest as _, Sha256};

const SOURCES: [&str; 2] = ["mvccpb/kv.proto", "etcdserverpb/rpc.proto"];

/// Says of each request what answers it and where it is sent.
struct Methods;

impl ServiceGenerator for Methods {
    fn generate(&mut self, service: Service, code: &mut String) {
        for method in &service.methods {
            let kind = if method.client_streaming { "Converse" } else { "Ask" };
            let path = format!("/{}.{}/{}", service.package, service.proto_name, method.proto_name);
            let (request, answer) = (&method.input_type, &method.output_type);
            let implementation = format!(
                "impl crate::etcd::client::{kind} for {request} {{ \
                 type Answer = {answer}; const PATH: &'static str = \"{path}\"; }}\n"
            );
            code.push_str(&implementation);
        }
    }
}

fn main() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::compile(SOURCES, [folder])?;
    let mut config = Config::new();
    config.bytes(["."]).service_generator(Box::new(Methods));
    let modules = files.file.into_iter().map(|file| (Module::from_protobuf_package_name(file.package()), file));
    for (module, code) in config.generate(modules.collect())? {
        let package = module.to_file_name_or("");
        // What it says of itself is said here, and the rest is the same for every enum.
        let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = code.join("\n") + "\n";
        let mut digest = Sha256::new();
        for source in SOURCES {
            digest.update(fs::read(folder.join(source)).with_context(|| format!("{source} cannot be read"))?);
        }
        digest.update(&code);
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!(
            "//! etcd's messages of this package: made by `store/proto/generate.rs` of the files beside it, and never edited.\n\
             // SHA-256 of those files and of what follows: {digest}\n{code}"
        );
        let target = folder.join("../src/etcd/proto").join(package);
        fs::write(&target, text).with_context(|| format!("{} cannot be written", target.display()))?;
    }
    Ok(())
}
