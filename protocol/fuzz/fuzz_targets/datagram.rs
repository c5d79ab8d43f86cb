//! A datagram from the network, and a datagram of a peer that has the key and is hostile.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use bytes::Bytes;
use kd_protocol::kdnet::{Channel, Cipher, Datagram, Direction, Envelope, Flags, Key};
use kd_protocol::link::Content;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    version: u8,
    flags: u8,
    from_host: bool,
    sequence: u64,
    body: Vec<u8>,
}

struct Ciphers {
    control: Cipher,
    data: Cipher,
}

static CIPHERS: LazyLock<Ciphers> = LazyLock::new(|| {
    let key: Key = "1.2.3.4".parse().expect("a valid key");
    Ciphers { control: key.control_cipher(), data: key.data_cipher(b"a response") }
});

fuzz_target!(|input: Input| {
    let Ciphers { control, data } = &*CIPHERS;
    // As if the body were the whole datagram.
    if let Ok(envelope) = Envelope::parse(&input.body) {
        assert!(envelope.open(control).is_err(), "nobody guesses a tag");
    }

    let datagram = Datagram {
        version: input.version,
        flags: Flags::from_bits_retain(input.flags),
        direction: if input.from_host { Direction::HostToTarget } else { Direction::TargetToHost },
        // The field has 56 bits.
        sequence: input.sequence >> 8,
        body: Bytes::from(input.body),
    };
    let cipher = match datagram.channel() {
        Channel::Control => control,
        Channel::Data => data,
    };
    let sealed = datagram.seal(cipher);
    // UDP carries no more, and libFuzzer's inputs are not that long unless asked for.
    let Ok(envelope) = Envelope::parse(&sealed) else { return };
    assert_eq!(envelope.open(cipher).as_ref(), Ok(&datagram));
    if let Ok(content) = Content::decode(&datagram) {
        assert_eq!(content.encode(), datagram.body);
        let _ = content.to_string();
    }
});
