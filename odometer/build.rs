//! Compiles the protocols of gRPC, in Rust: nobody needs protoc.

use std::path::PathBuf;

use tonic_prost_build::{FileDescriptorSet, configure, manual};

const OURS: &str = "odometer/quota/v1/quota.proto";
const ENVOYS: &str = "envoy/rls.proto";
/// The call whose messages our server reads where they lie, and what it reads and
/// writes.
const BY_BATCH: &str = "CheckStream";
const BATCH: &str = "bytes::Bytes";
const BATCH_ANSWER: &str = "crate::quota::grpc::batch::BatchAnswer";
const BATCH_CODEC: &str = "crate::quota::grpc::batch::BatchCodec";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo::rerun-if-changed={}", folder.display());
    // Clients are for tests, which have no build of their own.
    configure().build_client(true).build_server(true).compile_fds(protox::compile([ENVOYS], [&folder])?)?;
    let ours = protox::compile([OURS], [&folder])?;
    manual::Builder::new().build_client(false).compile(&servers(&ours));
    configure().build_client(true).build_server(false).compile_fds(ours)?;
    Ok(())
}

/// Every service of `files`, with a codec of its own for [`BY_BATCH`].
fn servers(files: &FileDescriptorSet) -> Vec<manual::Service> {
    let mut services = Vec::new();
    for file in &files.file {
        for service in &file.service {
            let builder = manual::Service::builder().name(service.name()).package(file.package());
            services.push(
                service
                    .method
                    .iter()
                    .fold(builder, |builder, method| {
                        let by_batch = method.name() == BY_BATCH;
                        // The server's module is beside the messages.
                        let message = |name: &str| format!("super::{}", name.rsplit('.').next().unwrap_or(name));
                        let (input, output) = (message(method.input_type()), message(method.output_type()));
                        let mut rust = manual::Method::builder().name(snake(method.name())).route_name(method.name());
                        rust = rust.input_type(if by_batch { BATCH } else { &input });
                        rust = rust.output_type(if by_batch { BATCH_ANSWER } else { &output });
                        rust = rust.codec_path(if by_batch { BATCH_CODEC } else { "tonic_prost::ProstCodec" });
                        rust = if method.client_streaming() { rust.client_streaming() } else { rust };
                        rust = if method.server_streaming() { rust.server_streaming() } else { rust };
                        builder.method(rust.build())
                    })
                    .build(),
            );
        }
    }
    services
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}
