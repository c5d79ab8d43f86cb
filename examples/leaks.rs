//! What a driver of a live target holds: `cargo run --example leaks -- net:port=50000,key=1.2.3.4 myfault.sys SYMPATH`

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kd_protocol::kd::DebugIo;
use verikd::commands::{Run, Style, find};
use verikd::debugger::{Debugger, Notice, Observer};
use verikd::session::{Connection, Session, SessionConfig};
use verikd::symbols::store::SymbolPath;
use verikd::target::Progress;

struct Quiet;

impl Observer for Quiet {
    fn notice(&mut self, _: &Notice<'_>) {}
    fn prompt(&mut self, _: &DebugIo) -> Bytes {
        Bytes::from_static(b"i")
    }
}

impl Progress for Quiet {
    fn advance(&self, _: &'static str, _: u64, _: u64) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [connection, driver, symbols] = &*arguments else {
        return Err("usage: leaks CONNECTION DRIVER SYMPATH".into());
    };
    let (connection, _) = Connection::parse(connection)?;
    let session = Arc::new(Session::open(&SessionConfig::over(connection))?);
    session.wait_for_target(None)?;
    let mut debugger = Debugger::new(session, SymbolPath::parse(symbols), Duration::from_secs(15));
    debugger.break_in(&mut Quiet)?;
    let line = format!("!verifier 3 {driver}");
    let (spec, arguments) = find(&line)?;
    let Run::Query(run) = spec.run else { unreachable!("!verifier asks the target") };
    let mut text = String::new();
    debugger.ask(run, arguments, &Quiet)?.write_text(Style::default(), &mut text)?;
    println!("{text}The target: {:?}", debugger.leave());
    Ok(())
}
