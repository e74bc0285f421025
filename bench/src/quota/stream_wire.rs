//! `CheckStream` as far as it is measured: batches go out as bytes that were made
//! before, answers come in read. Decides nothing.

use bytes::{BufMut as _, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstDecoder;

/// Where batches are sent.
pub(super) const PATH: PathAndQuery = PathAndQuery::from_static("/odometer.quota.v1.Quota/CheckStream");
/// `ALLOW` of the protocol.
pub(super) const ALLOW: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Batch {
    #[prost(uint64, tag = "1")]
    tag: u64,
    #[prost(message, repeated, tag = "2")]
    checks: Vec<Check>,
}

#[derive(Clone, PartialEq, Message)]
struct Check {
    #[prost(message, optional, tag = "1")]
    who: Option<Who>,
    #[prost(message, repeated, tag = "2")]
    items: Vec<Item>,
}

#[derive(Clone, PartialEq, Message)]
struct Who {
    #[prost(string, tag = "1")]
    tenant: String,
}

#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(string, tag = "1")]
    meter: String,
    #[prost(uint64, optional, tag = "2")]
    base_units: Option<u64>,
}

/// What comes back.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(uint64, tag = "1")]
    pub(super) tag: u64,
    #[prost(int32, repeated, tag = "2")]
    pub(super) decisions: Vec<i32>,
    #[prost(message, repeated, tag = "4")]
    pub(super) errors: Vec<CheckError>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CheckError {
    #[prost(string, tag = "3")]
    pub(super) message: String,
}

/// A batch that asks for one unit of `meter` for each tenant.
pub(super) fn batch(tag: u64, tenants: impl Iterator<Item = String>, meter: &str) -> Bytes {
    let check = |tenant| Check {
        who: Some(Who { tenant }),
        items: vec![Item { meter: meter.to_owned(), base_units: Some(1) }],
    };
    Batch { tag, checks: tenants.map(check).collect() }.encode_to_vec().into()
}

/// Sends what was made before: the generator shares the cores with the server, and so
/// that of Redis does it.
#[derive(Debug, Default)]
pub(super) struct Ready;

impl Codec for Ready {
    type Encode = Bytes;
    type Decode = Answer;
    type Encoder = Self;
    type Decoder = ProstDecoder<Answer>;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> ProstDecoder<Answer> {
        ProstDecoder::new(BufferSettings::default())
    }
}

impl Encoder for Ready {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(item.len());
        buf.put(item);
        Ok(())
    }
}
