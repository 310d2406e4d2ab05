//! A name server for tests.

use std::net::{IpAddr, Ipv4Addr};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType, rdata};
use tokio::net::UdpSocket;

/// A name server that knows a few names, until the test's runtime ends.
pub(super) async fn name_server() -> ResolverConfig {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        let mut buffer = [0; 4_096];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            if let Some(answer) = answer(&buffer[..length]) {
                socket.send_to(&answer, peer).await.unwrap();
            }
        }
    });
    let mut udp = ConnectionConfig::udp();
    udp.port = port;
    let mut server = NameServerConfig::udp(IpAddr::V4(Ipv4Addr::LOCALHOST));
    server.connections = vec![udp];
    ResolverConfig::from_name_servers(vec![server])
}

fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).unwrap();
    let query = question.queries[0].clone();
    let name = query.name().to_string();
    let addresses: &[&str] = match name.as_str() {
        "public.example." => &["93.184.216.34", "2606:4700::1111"],
        "private.example." => &["10.0.0.1"],
        "mixed.example." => &["93.184.216.34", "10.0.0.1"],
        "half.example." => &["93.184.216.34", "::1"],
        "local.example." => &["127.0.0.1"],
        "silent.example." => return None,
        _ => &[],
    };
    let mut message = Message::response(question.metadata.id, OpCode::Query);
    message.add_query(query.clone());
    if addresses.is_empty() {
        message.metadata.response_code = ResponseCode::NXDomain;
    }
    for address in addresses {
        let data = match address.parse().unwrap() {
            IpAddr::V4(v4) if query.query_type() == RecordType::A => RData::A(rdata::A(v4)),
            IpAddr::V6(v6) if query.query_type() == RecordType::AAAA => {
                RData::AAAA(rdata::AAAA(v6))
            }
            _ => continue,
        };
        message.add_answer(Record::from_rdata(query.name().clone(), 60, data));
    }
    Some(message.to_vec().unwrap())
}
