//! libFuzzer's entry: `fuzz PATH [-flags]`, where PATH is a folder named as a target, which gets its seeds, or a file in one.
#![no_main]

use std::{env, fs, path::PathBuf, sync::OnceLock};

use fuzz::{TARGETS, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(init: begin(), |bytes: &[u8]| {
    let target = TARGET.get().expect("the fuzzer begins before it goes on");
    (target.check)(bytes);
});

fn begin() {
    let path = env::args_os().skip(1).find(|argument| !argument.as_encoded_bytes().starts_with(b"-"));
    let path = PathBuf::from(path.unwrap_or_default());
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    let target = TARGETS.iter().find(|target| path.iter().any(|part| part == target.name));
    let target = target.unwrap_or_else(|| panic!("name a folder or a file in one that is called one of {names:?}"));
    if path.is_dir() {
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(path.join(format!("seed-{number}")), seed).expect("the corpus can be written");
        }
    }
    assert!(TARGET.set(target).is_ok(), "the fuzzer begins once");
}
