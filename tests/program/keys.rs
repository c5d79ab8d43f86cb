//! Where a key may be written, who is warned, and that nobody ever reads it in what the program prints.

use std::process::Stdio;

use crate::program::{Finished, Setup, command, verikd};

const SECRET: &str = "7hidden7.9secret9.3.4";

/// The program with a key in its environment.
fn with_variable(key: &str, arguments: &[&str]) -> Finished {
    let output = command(arguments).env("VERIKD_KEY", key).stdin(Stdio::null()).output().unwrap();
    Finished {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_mistyped_key_is_repeated_by_no_part_of_the_program() {
    let broken = format!("{SECRET}.5");
    for arguments in [
        vec!["-k", &format!("net:port=50000,key={broken}")],
        vec!["-k", &format!("net:port=50000,kee={SECRET}")],
        vec!["-k", "net:port=50000", &format!("key={SECRET}")],
        vec!["-k", "net:port=50000", SECRET],
        vec!["-k", &format!("net:port=50000,key={SECRET}"), "--no-such-option"],
        vec!["sim", "--connect", "127.0.0.1:1", "--key", &broken],
        vec!["sim", "--connect", "127.0.0.1:1", &format!("--kee={SECRET}")],
        vec!["sim", "--connect", SECRET],
        vec!["capture", "/no/such/file", "--key", &broken],
        vec!["capture", "/no/such/file", "--key", SECRET],
        vec!["bridge", "--from", "com:pipe,port=/tmp/x", "--to", &format!("net:port=1,key={broken}")],
        vec!["bridge", "--from", &format!("net:port=1,key={SECRET}"), "--to", "net:port=1"],
    ] {
        let Finished { code, out, err } = verikd(&arguments);
        assert_ne!(code, 0, "{arguments:?}");
        for word in ["hidden", "secret"] {
            assert!(!err.contains(word) && !out.contains(word), "{arguments:?}: {err}");
        }
        assert!(!err.is_empty(), "{arguments:?} says what is wrong");
    }
}

#[test]
fn a_key_is_taken_from_the_environment_and_a_wrong_one_there_is_named() {
    let nobody = ["-k", "com:pipe,port=/no/such", "-c", "q", "--connect-timeout", "100ms"];
    assert_eq!(with_variable(SECRET, &nobody).code, 1, "a serial line needs no key");
    let finished = with_variable("1.2.3", &["-k", "net:port=50000"]);
    assert_eq!(finished.code, 2);
    assert!(finished.err.contains("VERIKD_KEY: a KDNET key has four parts"), "{}", finished.err);
    let Finished { code, err, .. } = verikd(&["-k", "net:port=50000"]);
    assert_eq!(code, 2);
    assert!(err.contains("VERIKD_KEY") && err.contains("key=@FILE"), "{err}");
}

#[test]
fn a_whole_session_runs_on_keys_that_nobody_sees() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let connection = format!("net:port={}", setup.port);
    let seen = with_variable("1.2.3.4", &["-k", &connection, "-b", "-c", "q"]);
    assert_eq!(seen.code, 0, "{}", seen.err);
    assert!(!seen.err.contains("warning"), "{}", seen.err);
}

#[test]
fn a_key_that_everybody_sees_is_warned_of_unless_all_is_on_this_machine() {
    let warning = |connection: String| {
        verikd(&["-k", &connection, "-c", "q", "--connect-timeout", "10ms"]).err.contains("every user")
    };
    let port = Setup::new().port;
    assert!(warning(format!("net:port={port},key=1.2.3.4")));
    assert!(!warning(format!("net:port={port},key=1.2.3.4,hostip=127.0.0.1")));
    let capture = verikd(&["capture", "/no/such/file", "--key", "1.2.3.4"]);
    assert!(capture.err.contains("every user"), "{}", capture.err);
}

#[test]
fn a_target_that_is_not_the_named_one_is_not_heard() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let connection = |only: &str| format!("{},target={only}", setup.connection("1.2.3.4"));
    let deaf = verikd(&["-k", &connection("192.0.2.7"), "-c", "q", "--connect-timeout", "4s"]);
    assert_eq!(deaf.code, 1);
    assert!(deaf.err.contains("target= names another machine"), "{}", deaf.err);
    let hears = verikd(&["-k", &connection("127.0.0.1"), "-b", "-c", "q"]);
    assert_eq!(hears.code, 0, "{}", hears.err);
}

#[test]
fn options_of_other_programs_and_systems_are_named() {
    for (connection, wanted) in [
        ("net:port=50000,nodhcp", "belongs to bcdedit"),
        ("usb:targetname=x", "USB is not supported"),
        ("NET:port=0,key=1.2.3.4", "not a UDP port"),
        ("local", "not supported"),
    ] {
        let Finished { code, err, .. } = verikd(&["-k", connection]);
        assert_eq!(code, 2, "{connection}");
        assert!(err.contains(wanted), "{connection}: {err}");
    }
}

#[test]
fn options_of_kd_are_understood_or_named() {
    let nobody = ["-k", "com:pipe,port=/no/such", "-c", "q", "--connect-timeout", "10ms"];
    let Finished { code, err, .. } = verikd(&[&["-Q", "-n", "-v"], &nobody[..]].concat());
    assert_eq!(code, 1, "it is the line that is missing: {err}");
    assert_eq!(err.matches("is ignored").count(), 3, "{err}");
    for option in [&["-zp", "pagefile.sys"][..], &["-d"], &["-logo", "log.txt"], &["-p", "4"]] {
        let Finished { code, err, .. } = verikd(&[option, &nobody[..]].concat());
        assert_eq!(code, 2, "{option:?}");
        assert!(err.starts_with(&format!("verikd: {}: ", option[0])), "{err}");
    }
}

#[test]
#[cfg(unix)]
fn advice_for_a_line_that_is_not_there_fits_its_kind() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hint = |connection: &str| {
        let Finished { code, err, .. } = verikd(&["-k", connection, "-c", "q", "--connect-timeout", "300ms"]);
        assert_eq!(code, 1, "{err}");
        err
    };
    let tcp = hint(&format!("com:ipport={free},port=127.0.0.1"));
    assert!(tcp.contains(&format!("-serial tcp:127.0.0.1:{free},server,nowait")), "{tcp}");
    let pipe = hint("com:pipe,port=/no/such.sock");
    assert!(pipe.contains("-serial unix:/no/such.sock,server,nowait"), "{pipe}");
    let device = hint("com:port=/dev/no-such-tty");
    assert!(device.contains("There is no /dev/no-such-tty") && !device.contains("-serial"), "{device}");
}
