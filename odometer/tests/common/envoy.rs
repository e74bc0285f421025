//! A real Envoy in front of an HTTP service, with the example's configuration and other
//! ports. Needs `ODOMETER_TEST_ENVOY`, see `dev/services fetch`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use reqwest::{Client, Response};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Looks until it answers. Far above what a start takes on a busy machine.
const LOOKS_MAX: u32 = 600;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Envoy, ended with the test.
pub(crate) struct Envoy {
    child: Child,
    pub(crate) url: String,
    pub(crate) client: Client,
    directory: TempDir,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Envoy {
    /// Envoy before a service that answers with the reservation that its request came
    /// with, asking the quota at an address; none, and says so, where there is no Envoy.
    pub(crate) async fn before_a_service(quota: SocketAddr) -> Option<Self> {
        let Ok(program) = std::env::var("ODOMETER_TEST_ENVOY") else {
            eprintln!("ODOMETER_TEST_ENVOY is not set: run `eval \"$(dev/services fetch)\"`; nothing was tested");
            return None;
        };
        Some(Self::start(&program, upstream().await, quota).await)
    }

    async fn start(program: &str, service: SocketAddr, quota: SocketAddr) -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/envoy/envoy.yaml");
        let edge = free_address();
        let mut config = std::fs::read_to_string(example).unwrap();
        for (port, ours) in [("10000", edge), ("8000", service), ("7071", quota)] {
            let named = format!("port_value: {port}}}");
            assert!(config.contains(&named), "{port}");
            config = config.replace(&named, &format!("port_value: {}}}", ours.port()));
        }
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("envoy.yaml");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let flags = ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning", "-c"];
        let child = Command::new(program).args(flags).arg(&file).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        let mut envoy = Self { child, url: format!("http://{edge}/"), client, directory };
        for _ in 0..LOOKS_MAX {
            if envoy.client.get(&envoy.url).send().await.is_ok() {
                return envoy;
            }
            if envoy.child.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("envoy does not answer: {}", std::fs::read_to_string(envoy.directory.path().join("log")).unwrap());
    }

    pub(crate) async fn ask(&self, tenant: &str) -> Response {
        self.client.get(&self.url).header("x-tenant", tenant).header("x-user", "u").send().await.unwrap()
    }
}

/// An address that nothing listens on.
pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A service that answers with the reservation that its request came with.
async fn upstream() -> SocketAddr {
    let name = |headers: HeaderMap| async move {
        headers.get("x-odometer-reservation").map(|id| id.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, Router::new().route("/", get(name))).into_future());
    address
}
