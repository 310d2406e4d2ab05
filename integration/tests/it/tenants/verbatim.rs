//! Calls as bytes, whatever their types.

use bytes::{Buf, BufMut};
use integration::node::Authorization;
use prost::Message;
use proto::v1;
use tokio_stream::StreamExt;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;

/// Leaves messages as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Verbatim;

impl Codec for Verbatim {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Verbatim {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Verbatim {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// All that an answer says.
#[derive(Debug)]
pub(super) struct Heard {
    /// Messages, the status' text and details, and metadata.
    pub(super) bytes: Vec<u8>,
    /// How the call ended.
    pub(super) end: Result<(), Status>,
    /// The messages.
    pub(super) messages: Vec<Vec<u8>>,
}

/// Makes a call, of one message or of a stream of one, and listens to its end; to a subscription,
/// until it has caught up.
pub(super) async fn ask(address: &str, key: &str, method: &str, message: Vec<u8>) -> Heard {
    let mut heard = Heard {
        bytes: Vec::new(),
        end: Ok(()),
        messages: Vec::new(),
    };
    heard.end = listen(address, key, method, message, &mut heard).await;
    if let Err(status) = &heard.end {
        heard.bytes.extend(status.message().as_bytes());
        heard.bytes.extend(status.details());
        heard
            .bytes
            .extend(format!("{:?}", status.metadata()).as_bytes());
    }
    heard
}

async fn listen(
    address: &str,
    key: &str,
    method: &str,
    message: Vec<u8>,
    heard: &mut Heard,
) -> Result<(), Status> {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let authorization = Authorization::bearer(key).unwrap();
    let door = authorization.over(channel.connect_lazy());
    let mut client = tonic::client::Grpc::new(door);
    client.ready().await.unwrap();
    let path = format!("/ablo.coordinator.v1.{method}");
    let path = PathAndQuery::from_maybe_shared(path).unwrap();
    let request = tonic::Request::new(tokio_stream::once(message));
    let answer = client.streaming(request, path, Verbatim).await?;
    heard
        .bytes
        .extend(format!("{:?}", answer.metadata()).as_bytes());
    let mut messages = answer.into_inner();
    let mut beats = 0;
    while let Some(message) = messages.next().await {
        let message = message?;
        heard.bytes.extend(&message);
        heard.messages.push(message.clone());
        if method == "Log/Subscribe" {
            let frame = v1::SubscribeResponse::decode(&message[..]).unwrap().frame;
            let beat = matches!(frame, Some(v1::subscribe_response::Frame::Heartbeat(_)));
            beats += usize::from(beat);
            // The first says where the stream begins, the second that there is no more.
            if beats == 2 {
                break;
            }
        }
    }
    Ok(())
}
