//! `verikd sim`: a simulated target for any debugger that speaks KDNET, or KD over a serial line.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use verikd::key::{self, KeyText};
use verikd_sim::windows::{BUILDS, Build, Growth, Machine, Scenario, WINDOWS_7_SP1, WINDOWS_XP_X86};
use verikd_sim::{
    DumpKind, Quirk, SerialPort, Simulator, SimulatorConfig, SimulatorEvent, SimulatorLink, export_isf,
    export_symbols, write_dump,
};

use self::faults::FaultOptions;
use super::exit::{FAILED, USAGE, fail};
use super::visible_key::warn_of_visible_key;

mod faults;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("place").required(true).multiple(true).args(["connect", "serial", "write_dump"])))]
pub(super) struct Options {
    /// Where the debugger listens
    #[arg(long, value_name = "HOST:PORT", value_parser = resolve)]
    connect: Option<SocketAddr>,
    /// The key that the debugger is given too, or @FILE; otherwise VERIKD_KEY
    #[arg(long, value_name = "W.X.Y.Z", requires = "connect")]
    key: Option<KeyText>,
    /// Be behind a serial line instead, as a virtual machine is: unix:PATH, tcp:PORT or tcp:ADDR:PORT, where the debugger
    /// connects
    #[arg(long, value_name = "PLACE", value_parser = serial_port,
        conflicts_with_all = ["connect", "source"])]
    serial: Option<SerialPort>,
    /// Which Windows it has
    #[arg(long, value_name = "BUILD", default_value = WINDOWS_7_SP1.name, value_parser = builds(), ignore_case = true)]
    windows: &'static Build,
    /// What has happened on it
    ///
    /// myfault unless it says otherwise; on a 32-bit Windows verifier-off
    #[arg(long, value_name = "NAME", value_parser = scenarios(), ignore_case = true)]
    scenario: Option<Scenario>,
    /// What it does unlike Windows, as other kernels do; several by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = quirks(), ignore_case = true)]
    quirks: Vec<Quirk>,
    /// Further drivers that are loaded, up to 200
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=i64::from(Growth::MOST_MODULES)))]
    modules: u16,
    /// How many of them Driver Verifier verifies too
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=i64::from(Growth::MOST_MODULES)))]
    drivers: u16,
    /// How often the newest leaked block's address was allocated and freed before, as the log has it
    #[arg(long, value_name = "TIMES", default_value_t = 0)]
    reuse: u32,
    /// Blocks that myfault.sys allocates and frees every second while the machine runs
    #[arg(long, value_name = "N", default_value_t = 0)]
    busy: u32,
    /// How many processors it has, up to 64
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=i64::from(Growth::MOST_PROCESSORS)))]
    processors: u8,
    /// By how many call paths myfault.sys leaks while the machine runs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(Growth::MOST_CALLERS)))]
    callers: u8,
    /// Send from this address; any free port otherwise
    #[arg(long, value_name = "ADDR:PORT")]
    source: Option<SocketAddr>,
    #[command(flatten)]
    faults: FaultOptions,
    /// How often the driver leaks a block once the machine has been stopped; 0s for never
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    leak_every: Duration,
    /// Write the images' symbols into a folder that -y can name
    #[arg(long, value_name = "DIR")]
    export_symbols: Option<PathBuf>,
    /// What to write the symbols as: PDBs in a symbol store, or volatility3's ISF
    #[arg(long, value_enum, requires = "export_symbols", default_value_t = SymbolFormat::Pdb)]
    format: SymbolFormat,
    /// Write the memory of the machine, at its bug check or else where a debugger would first stop it, to a file that -z
    /// opens, and end
    #[arg(long, value_name = "FILE")]
    write_dump: Option<PathBuf>,
    /// What kind of file: full, active, kernel, ranges (crash dumps), triage (a small one), elf (QEMU's core), lime
    #[arg(long, value_name = "KIND", requires = "write_dump", default_value = "kernel", value_parser = dump_kind)]
    dump_type: DumpName,
    /// Encode the kernel's debugger data block, as on a machine that was not booted for debugging
    #[arg(long, requires = "write_dump")]
    encode_debugger_data: bool,
}

/// What `--write-dump` writes.
#[derive(Clone, Copy, Debug)]
struct DumpName(DumpKind);

fn dump_kind(text: &str) -> Result<DumpName, String> {
    let found = DumpKind::ALL.into_iter().find(|kind| kind.name() == text).map(DumpName);
    found.ok_or_else(|| format!("one of {}", DumpKind::ALL.map(DumpKind::name).join(", ")))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum SymbolFormat {
    Pdb,
    Isf,
}

pub(super) fn run(options: &Options) -> u8 {
    let usual = if options.windows.is_32_bit() { Scenario::VerifierOff } else { Scenario::default() };
    let scenario = options.scenario.unwrap_or(usual);
    if let Err(error) = scenario.check(options.windows) {
        return fail(&error);
    }
    if let Some(directory) = &options.export_symbols {
        let (written, what) = match options.format {
            SymbolFormat::Pdb => (export_symbols(options.windows, directory), "PDBs"),
            SymbolFormat::Isf => (export_isf(options.windows, directory), "ISF files"),
        };
        match written {
            Ok(files) => say(&format!("{} {what} written to {}", files.len(), directory.display())),
            Err(error) => return fail(&error),
        }
    }
    let growth = Growth {
        modules: options.modules,
        drivers: options.drivers,
        reuse: options.reuse,
        busy: options.busy,
        processors: options.processors,
        callers: options.callers,
    };
    if let Some(path) = &options.write_dump {
        if options.windows.is_32_bit() {
            say("verikd: the memory of the 32-bit machine cannot be written to a file");
            return USAGE;
        }
        let mut machine = Machine::grown(options.windows, scenario, 0, 0, growth);
        machine.stop_for_dump();
        if options.encode_debugger_data {
            machine.encode_debugger_data(0);
        }
        return match write_dump(&machine, options.dump_type.0, path) {
            Ok(()) => {
                say(&format!("The memory of {} is written to {}", machine.title(), path.display()));
                0
            }
            Err(error) => {
                say(&format!("verikd: cannot write {}: {error}", path.display()));
                FAILED
            }
        };
    }
    let (to_host, to_target) = options.faults.of_each_direction();
    let link = match (&options.serial, options.connect) {
        (Some(port), _) => SimulatorLink::Serial(port.clone()),
        (None, Some(connect)) => match key::find(options.key.as_ref()) {
            Ok((key, origin)) => {
                warn_of_visible_key(Some(origin), connect.ip().is_loopback(), "--key @FILE");
                SimulatorLink::Kdnet { connect, source: options.source, key }
            }
            Err(error) => {
                fail(&error);
                return USAGE;
            }
        },
        (None, None) => unreachable!("the argument parser asks for --serial or --connect"),
    };
    let config = SimulatorConfig {
        link,
        faults: to_host,
        faults_to_target: Some(to_target),
        build: options.windows,
        scenario,
        quirks: options.quirks.iter().copied().collect(),
        growth,
        leak_every: Some(options.leak_every),
    };
    let title = match options.windows.release() {
        Ok(release) => release.title,
        Err(error) => return fail(&error),
    };
    let simulator = match Simulator::start(config) {
        Ok(simulator) => simulator,
        Err(error) => return fail(&error),
    };
    while let Some(event) = simulator.next_event(None) {
        say(&match event {
            SimulatorEvent::Started(place) => match options.connect {
                Some(connect) => {
                    format!("{title} runs; offers go from {place} to {connect}; Ctrl+C unplugs it")
                }
                None => format!("{title} runs; its serial line is {place}; Ctrl+C unplugs it"),
            },
            SimulatorEvent::Connected(host) => format!("Connected to the debugger at {host}"),
            SimulatorEvent::Stopped => "Stopped".into(),
            SimulatorEvent::Resumed => "Runs on".into(),
            SimulatorEvent::Rebooted => "Restarted".into(),
            SimulatorEvent::Printed(line) => line.trim_end().to_owned(),
            SimulatorEvent::DebuggerAbsent => {
                "The debugger does not acknowledge any more; runs on without it".into()
            }
        });
    }
    0
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text.to_socket_addrs().map_err(|error| format!("{error}; write HOST:PORT"))?;
    addresses.next().ok_or_else(|| "has no address".into())
}

fn serial_port(text: &str) -> Result<SerialPort, String> {
    match text.split_once(':') {
        Some(("unix", path)) if !path.is_empty() => Ok(SerialPort::Unix(path.into())),
        Some(("tcp", port)) if port.parse::<u16>().is_ok() => {
            Ok(SerialPort::Tcp((Ipv4Addr::LOCALHOST, port.parse().expect("it was parsed")).into()))
        }
        Some(("tcp", address)) => resolve(address).map(SerialPort::Tcp),
        _ => Err("write unix:PATH, tcp:PORT or tcp:ADDR:PORT".into()),
    }
}

fn builds() -> impl TypedValueParser<Value = &'static Build> {
    let names =
        PossibleValuesParser::new(BUILDS.iter().copied().chain([&WINDOWS_XP_X86]).map(|build| build.name));
    names.map(|name| Build::find(&name).expect("a possible value is a build's name"))
}

fn scenarios() -> impl TypedValueParser<Value = Scenario> {
    let names = PossibleValuesParser::new(Scenario::ALL.map(Scenario::name));
    names.map(|name| name.parse().expect("a possible value is a scenario's name"))
}

fn quirks() -> impl TypedValueParser<Value = Quirk> {
    let names = Quirk::ALL.iter().map(|quirk| PossibleValue::new(quirk.name()).help(quirk.explanation()));
    PossibleValuesParser::new(names).map(|name| name.parse().expect("a possible value is a quirk's name"))
}

fn say(text: &str) {
    // A watcher that has gone away does not stop the machine.
    let _ = writeln!(io::stderr(), "{text}");
}
