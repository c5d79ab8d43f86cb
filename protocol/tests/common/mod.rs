//! The vectors of `vectors/kdnet.json`, for every test file that wants real bytes.

// Each test file uses its part of this module, and compiles it as part of itself.
#![allow(dead_code, unreachable_pub)]

pub mod line;
pub mod net;

use bytes::Bytes;
use kd_protocol::kdnet::{Cipher, Datagram, Direction, Envelope, Flags, Key};
use kd_protocol::link::Content;
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
pub struct Vectors {
    pub keys: Vec<KeyVector>,
    pub invalid_keys: Vec<String>,
    pub sessions: Vec<Session>,
    pub datagrams: Vec<Vector>,
    pub negative: Vec<Vector>,
    #[serde(rename = "synthetic_host_datagrams")]
    pub synthetic: Vec<Vector>,
}

#[derive(Deserialize)]
pub struct KeyVector {
    pub string: String,
    pub control_key: String,
    pub hmac_key: String,
}

#[derive(Deserialize)]
pub struct Session {
    pub name: String,
    pub key: String,
    #[serde(deserialize_with = "bytes")]
    pub response_datagram: Vec<u8>,
    pub response_body_322: String,
    pub data_key: String,
}

#[derive(Deserialize)]
pub struct Vector {
    pub name: String,
    #[serde(rename = "raw_udp_payload", deserialize_with = "bytes")]
    pub raw: Vec<u8>,
    pub aes_key_ref: String,
    #[serde(default)]
    pub version: u8,
    #[serde(default)]
    pub channel: u8,
    #[serde(default)]
    pub direction: String,
    #[serde(default, deserialize_with = "bytes")]
    pub body: Vec<u8>,
    #[serde(rename = "seq")]
    pub sequence: Option<u64>,
    #[serde(rename = "kd")]
    pub kd_packet: Option<KdVector>,
}

#[derive(Deserialize)]
pub struct KdVector {
    #[serde(rename = "type")]
    pub packet_type: u16,
    pub packet_id: String,
}

impl Vectors {
    pub fn load() -> Self {
        serde_json::from_str(include_str!("../vectors/kdnet.json")).expect("the committed vectors parse")
    }

    /// The cipher of `A.control`, `A.data`, `B.control` or `B.data`.
    pub fn cipher(&self, key_ref: &str) -> Cipher {
        let (session, channel) = key_ref.split_once('.').expect("session.channel");
        let session = self.sessions.iter().find(|it| it.name == session).expect("a known session");
        let key: Key = session.key.parse().expect("a valid key");
        match channel {
            "control" => key.control_cipher(),
            _ => key.data_cipher(&unhex(&session.response_body_322)),
        }
    }

    /// What the datagram of that name carries.
    pub fn content(&self, name: &str) -> Content {
        let vector = self.datagrams.iter().find(|it| it.name == name).expect("a known vector");
        let cipher = self.cipher(&vector.aes_key_ref);
        Content::decode(&Envelope::parse(&vector.raw).unwrap().open(&cipher).unwrap()).unwrap()
    }
}

impl Vector {
    pub fn datagram(&self) -> Datagram {
        Datagram {
            version: self.version,
            flags: Flags::from_bits_retain(self.channel),
            direction: match self.direction.as_str() {
                "host_to_target" => Direction::HostToTarget,
                _ => Direction::TargetToHost,
            },
            sequence: self.sequence.expect("a vector to seal has a sequence"),
            body: Bytes::from(self.body.clone()),
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    String::deserialize(deserializer).map(|text| unhex(&text))
}
