//! What the protocols' files say, as Rust types. Generated at build time.
#![expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::default_constructed_unit_structs,
    reason = "generated for any crate"
)]

/// `odometer.quota.v1`: messages and clients, and the server, made apart from them.
pub(super) mod quota {
    tonic::include_proto!("odometer.quota.v1");
    tonic::include_proto!("odometer.quota.v1.Quota");
}

/// `envoy.service.ratelimit.v3`.
pub(super) use envoy::service::ratelimit::v3 as rls;

/// Packages refer to each other by the paths of their names.
pub(super) mod envoy {
    pub(in crate::quota::grpc) mod config {
        pub(in crate::quota::grpc) mod core {
            pub(in crate::quota::grpc) mod v3 {
                tonic::include_proto!("envoy.config.core.v3");
            }
        }
    }
    pub(in crate::quota::grpc) mod extensions {
        pub(in crate::quota::grpc) mod common {
            pub(in crate::quota::grpc) mod ratelimit {
                pub(in crate::quota::grpc) mod v3 {
                    tonic::include_proto!("envoy.extensions.common.ratelimit.v3");
                }
            }
        }
    }
    pub(in crate::quota::grpc) mod service {
        pub(in crate::quota::grpc) mod ratelimit {
            pub(in crate::quota::grpc) mod v3 {
                tonic::include_proto!("envoy.service.ratelimit.v3");
            }
        }
    }
}
