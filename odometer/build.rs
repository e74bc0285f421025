//! Compiles the protocols of gRPC, in Rust: nobody needs protoc.

use std::path::PathBuf;

const FILES: [&str; 2] = ["odometer/quota/v1/quota.proto", "envoy/rls.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo::rerun-if-changed={}", folder.display());
    let descriptors = protox::compile(FILES, [&folder])?;
    // Clients are for tests, which have no build of their own.
    tonic_prost_build::configure().build_client(true).build_server(true).compile_fds(descriptors)?;
    Ok(())
}
