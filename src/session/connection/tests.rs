use super::advice::{self, Found};
use super::{ComLine, ComPort, Connection, TargetPlace, parse};
use crate::key::KeyOrigin;

fn error(text: &str) -> String {
    text.parse::<Connection>().unwrap_err().to_string()
}

fn com_of(text: &str) -> ComLine {
    match text.parse() {
        Ok(Connection::Com(line)) => line,
        other => panic!("{text}: {other:?}"),
    }
}

fn net_of(text: &str) -> (String, Option<TargetPlace>) {
    match text.parse() {
        Ok(Connection::Net { listen, target, .. }) => (listen.to_string(), target),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn windbgs_network_string_is_understood() {
    let listens_at = |text: &str| net_of(text).0;
    assert_eq!(listens_at("net:port=50000,key=1.2.3.4"), "0.0.0.0:50000");
    assert_eq!(listens_at("net:key=1.2.3.4,hostip=127.0.0.1,port=1"), "127.0.0.1:1");
    assert_eq!(listens_at("net:key=1.2.3.4,bind=127.0.0.1,port=1"), "127.0.0.1:1");
    assert_eq!(listens_at(" NET: Port = 50000 , KEY = 1.2.3.4 ,"), "0.0.0.0:50000");
    assert_eq!(listens_at("net:port=1,key=1.2.3.4,hostip=[::1]"), "[::1]:1");
}

#[test]
fn a_target_that_is_named_is_the_only_one_heard() {
    let hears = |place: TargetPlace, from: &str| place.hears(from.parse().unwrap());
    let (listen, place) = net_of("net:port=50000,key=1.2.3.4,target=192.0.2.7");
    let place = place.unwrap();
    assert_eq!(listen, "0.0.0.0:50000");
    assert!(
        hears(place, "192.0.2.7:50000") && hears(place, "192.0.2.7:1") && !hears(place, "192.0.2.8:50000")
    );
    assert!(hears(place, "[::ffff:192.0.2.7]:1"), "as a socket of both families shows it");
    assert_eq!(place.address("0.0.0.0:50000".parse().unwrap()).to_string(), "192.0.2.7:50000");
    let place = net_of("net:port=50000,key=1.2.3.4,target=192.0.2.7:51000").1.unwrap();
    assert!(hears(place, "192.0.2.7:51000") && !hears(place, "192.0.2.7:50000"));
    assert_eq!(place.address("0.0.0.0:50000".parse().unwrap()).to_string(), "192.0.2.7:51000");
    let (listen, place) = net_of("net:port=50000,key=1.2.3.4,target=[2001:db8::7]:9");
    assert_eq!((listen.as_str(), place.unwrap().to_string().as_str()), ("[::]:50000", "[2001:db8::7]:9"));
    assert!(error("net:port=1,key=1.2.3.4,hostip=127.0.0.1,target=::1").contains("IPv6"));
    assert!(error("net:port=1,key=1.2.3.4,target=127.0.0.1:0").contains("target= is neither"));
}

#[test]
fn windbgs_serial_strings_are_understood() {
    let pipe = ComPort::Pipe("/tmp/vm.sock".into());
    assert_eq!(com_of("com:pipe,port=/tmp/vm.sock"), ComLine { port: pipe.clone(), reconnect: false });
    assert_eq!(
        com_of("com:pipe,port=/tmp/vm.sock,resets=0,baud=115200,reconnect"),
        ComLine { port: pipe.clone(), reconnect: true }
    );
    assert_eq!(com_of(" Com: Pipe, Port = /tmp/vm.sock , Reconnect").port, pipe);
    let tcp = ComPort::Tcp { host: "127.0.0.1".into(), port: 5003 };
    assert_eq!(com_of("com:ipport=5003,port=127.0.0.1").port, tcp);
    let tcp = ComPort::Tcp { host: "::1".into(), port: 5003 };
    assert_eq!(com_of("com:ipport=5003,port=[::1]").port, tcp);
    let device = ComPort::Device { path: "/dev/ttyS0".into(), baud: 57_600 };
    assert_eq!(com_of("com:port=/dev/ttyS0,baud=57600").port, device);
}

#[test]
fn a_wrong_string_says_what_to_write() {
    assert!(error("tcp:port=1").contains("net:port=50000,key=1.2.3.4"));
    assert!(error("net:port=70000,key=1.2.3.4").contains("not a UDP port"));
    assert!(error("net:port=0,key=1.2.3.4").contains("not a UDP port"));
    assert!(error("net:port=1,key=1.2.3").contains("this one has 3"));
    assert!(error("net:port=1,key=1.2.3.4,baud=9600").contains("baud is no option of net:"));
    assert!(error("net:key=1.2.3.4").contains("port is missing"));
    assert!(error("net:port=1,port=2,key=1.2.3.4").contains("port is given twice"));
    assert!(error("net:port=,key=1.2.3.4").contains("port= has no value"));
    assert!(error("net:port=1,key=1.2.3.4,hostip=here").contains("hostip= is not an IP address"));
    assert!(error("net:port=1,key=1.2.3.4,bind=here").contains("bind= is not an IP address"));
    assert!(error("com:pipe").contains("com:pipe,port=/path/to/vm.sock"));
    assert!(error("com:ipport=5003").contains("com:ipport=5003,port=127.0.0.1"));
    assert!(error("com:ipport=x,port=a").contains("not a TCP port"));
    assert!(error("com:ipport=0,port=a").contains("not a TCP port"));
    assert!(error("com:port=/dev/ttyS0,baud=fast").contains("not a speed"));
    assert!(error("com:port=/dev/ttyS0,baud=0").contains("not a speed"));
    assert!(error("com:port=/dev/ttyS0,key=1.2.3.4").contains("key is no option of com:"));
    assert!(error("com:pipe=yes,port=/tmp/a").contains("pipe is no option"));
}

#[test]
fn what_belongs_elsewhere_is_named() {
    for name in ["dhcp", "nodhcp", "ipversion=6", "busparams=1.2.3", "DHCP=yes"] {
        let error = error(&format!("net:port=50000,key=1.2.3.4,{name}"));
        assert!(error.contains("belongs to bcdedit on the target"), "{error}");
    }
    assert!(error("com:port=/dev/ttyS0,baudrate=9600").contains("baudrate:115200"));
    for name in ["usb:targetname=x", "USB3:targetname=x", "1394:channel=1", "exdi:CLSID={1}", "local"] {
        let error = error(name);
        assert!(error.contains("is not supported") && error.contains("net:port=50000"), "{error}");
    }
}

#[test]
fn a_key_is_in_no_error_wherever_it_stands() {
    let key = "7hidden7.9secret9.3.4";
    for text in [
        format!("nett:port=50000,key={key}"),
        format!("net:port=50000;key={key}"),
        format!("net:port=50000,kye={key}"),
        format!("net:port=50000,{key}"),
        format!("net:{key}"),
        format!("net:port={key}"),
        format!("net:port=1,hostip={key},key=1.2.3.4"),
        format!("net:port=1,target={key}:x,key=1.2.3.4"),
        format!("net:port=1,key={key}!"),
        format!("net:port=1,key={key}.5"),
        format!("com:{key}"),
        format!("com:port=a,key={key}"),
        format!("com:port=a,baud={key}"),
        format!("com:port=a,ipport={key}"),
        format!("usb:{key}"),
        key.to_owned(),
    ] {
        let error = text.parse::<Connection>().unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hidden") && !shown.contains("secret"), "{shown}");
    }
}

#[test]
fn where_the_key_stood_is_told() {
    let origin = |text: &str| Connection::parse(text).unwrap().1;
    assert_eq!(origin("net:port=50000,key=1.2.3.4"), Some(KeyOrigin::CommandLine));
    assert_eq!(origin("com:pipe,port=/tmp/vm.sock"), None);
    assert!(error("net:port=50000,key=@/no/such/key").contains("/no/such/key"));
}

#[test]
fn names_of_another_system_are_told_apart() {
    let device = |path: &str, on_windows| match parse::is_device_of_this_system(path, on_windows) {
        Ok(()) => "fine".into(),
        Err(error) => error.to_string(),
    };
    assert!(device("COM1", false).contains("/dev/ttyS0"));
    assert!(device(r"\\.\com12", false).contains("/dev/ttyS0"));
    assert!(device(r"\\.\pipe\vm", false).contains("vm.sock"));
    assert_eq!(device("/dev/ttyS0", false), "fine");
    assert_eq!(device("combined", false), "fine");
    assert_eq!(device("COM1", true), "fine");
    assert!(device("/dev/ttyS0", true).contains("COM1"));
    assert!(parse::is_pipe_of_this_system(r"\\.\pipe\vm", false).is_err());
    assert!(parse::is_pipe_of_this_system(r"\\.\pipe\vm", true).is_ok());
}

#[test]
fn advice_fits_the_kind_of_port_and_what_is_at_its_place() {
    assert_eq!(
        advice::advice_of_tcp("127.0.0.1", 52433),
        "Start the virtual machine, with QEMU for example by -serial tcp:127.0.0.1:52433,server,nowait"
    );
    let far = advice::advice_of_tcp("192.0.2.7", 5003);
    assert!(far.contains("-serial tcp::5003,server,nowait") && far.contains("firewalls"), "{far}");
    let socket = |found| advice::advice_of_socket("/tmp/vm", found);
    assert!(socket(Found::Nothing).contains("-serial unix:/tmp/vm,server,nowait"));
    assert!(socket(Found::Socket).contains("nobody answers"));
    assert!(socket(Found::Device).contains("com:port=/tmp/vm,baud=115200"));
    assert!(socket(Found::Fifo).contains("-serial pipe:/tmp/vm"));
    assert!(socket(Found::File).contains("is a file, and no socket"));
    let device = |found| advice::advice_of_device("/tmp/vm", found);
    assert!(device(Found::Socket).contains("com:pipe,port=/tmp/vm"));
    assert!(device(Found::Nothing).contains("ls /dev/ttyS*"));
    assert!(device(Found::Device).contains("dialout"));
    assert!(device(Found::Folder).contains("is a folder, and no device"));
    assert!(advice::advice_of_windows_device(r"\\.\pipe\vm").contains(r"com:pipe,port=\\.\pipe\vm"));
    assert!(advice::advice_of_windows_pipe(r"\\.\pipe\vm").contains("Start the virtual machine"));
}

#[test]
#[cfg(unix)]
fn a_socket_given_as_a_device_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm.sock").display().to_string();
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(error(&format!("com:port={path}")).contains(&format!("add pipe, com:pipe,port={path}")));
    assert!(error("com:pipe,port=/dev/null").contains("write com:port=/dev/null"));
    com_of(&format!("com:pipe,port={path}"));
}
