//! A gate as JUnit's XML, which servers for continuous integration read: a suite with a case for each driver.
//!
//! ```text
//!  <testsuites><testsuite name="verikd check" tests="1" failures="1" errors="0" ..>
//!    <properties/>
//!    <testcase classname="verikd.check" name="myfault.sys" time="0.41"><failure type="over" message="..">table</failure></testcase>
//!    <system-out/><system-err/>
//! ```
//! There are several schemas of this form. The order and the attributes here are what both the loose one of Jenkins' xUnit
//! plugin and the strict one for Ant's task ask for.

use std::io::{self, Write};
use std::time::Duration;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::gate::{DriverGate, Gate, Verdict};
use super::text::{sentence, write_offenders};
use crate::output::{Escaped, iso_time, screened};

/// When and where a check took place.
#[derive(Clone, Debug)]
pub struct Occasion {
    /// Where the target is.
    pub place: String,
    /// When it was over: milliseconds since 1970.
    pub unix_ms: u64,
    /// How long it took.
    pub took: Duration,
    /// For how long the target stood still.
    pub frozen: Duration,
}

/// What is wrong with a case: its element, its type, a line and a text.
struct Wrong {
    element: &'static str,
    kind: &'static str,
    message: String,
    text: String,
}

/// A case: a name and what is wrong with it.
type Case = (String, Option<Wrong>);

/// Writes a gate.
///
/// # Errors
/// The writer's.
pub fn write_junit(gate: &Gate, occasion: &Occasion, out: &mut dyn Write) -> io::Result<()> {
    let mut cases: Vec<Case> = gate.drivers.iter().map(|driver| case(gate, driver)).collect();
    if cases.is_empty() {
        let message = "no driver was found that is verified";
        cases.push(("drivers".to_owned(), Some(unknown(message.to_owned(), gate))));
    } else if gate.verdict > gate.drivers.iter().map(|it| it.verdict).max().unwrap_or(Verdict::Passed) {
        cases.push(("whole".to_owned(), Some(unknown("something was not read".to_owned(), gate))));
    }
    let missing: String = gate.missing.iter().map(|it| format!("{it}\n")).collect();
    write(&cases, &gate.limits.to_string(), occasion, &missing, out)
}

/// Writes that there was nothing to judge: no target, no answer.
///
/// # Errors
/// The writer's.
pub fn write_error(
    drivers: &[String],
    why: &str,
    occasion: &Occasion,
    out: &mut dyn Write,
) -> io::Result<()> {
    let all = ["drivers".to_owned()];
    let names = if drivers.is_empty() { &all[..] } else { drivers };
    let error = || Wrong {
        element: "error",
        kind: "not_checked",
        message: why.lines().next().unwrap_or_default().to_owned(),
        text: why.to_owned(),
    };
    let cases: Vec<Case> = names.iter().map(|name| (name.clone(), Some(error()))).collect();
    write(&cases, "", occasion, why, out)
}

fn case(gate: &Gate, driver: &DriverGate) -> Case {
    let message = sentence(gate, driver);
    let wrong = match driver.verdict {
        Verdict::Passed => None,
        Verdict::Unknown => Some(unknown(message, gate)),
        Verdict::Over => {
            let mut text = format!("{message}\n");
            write_offenders(driver, &mut text).expect("a String takes any text");
            Some(Wrong { element: "failure", kind: "over", message, text })
        }
    };
    (driver.driver.clone(), wrong)
}

fn unknown(message: String, gate: &Gate) -> Wrong {
    Wrong { element: "error", kind: "unknown", text: gate.missing.join("\n"), message }
}

fn write(
    cases: &[Case],
    limits: &str,
    occasion: &Occasion,
    system_err: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    let count = |element| {
        let count =
            cases.iter().filter(|(_, wrong)| wrong.as_ref().is_some_and(|it| it.element == element)).count();
        count.to_string()
    };
    let (tests, failures, errors) = (cases.len().to_string(), count("failure"), count("error"));
    let seconds = |time: Duration| format!("{:.3}", time.as_secs_f64());
    let took = seconds(occasion.took);
    let timestamp = iso_time(i64::try_from(occasion.unix_ms / 1000).unwrap_or_default());
    let frozen = seconds(occasion.frozen);
    let properties = [
        ("target", line(&occasion.place)),
        ("allowed", limits.to_owned()),
        ("stood_still_seconds", frozen),
        ("program", concat!("verikd ", env!("CARGO_PKG_VERSION")).to_owned()),
    ];
    let mut writer = Writer::new_with_indent(out, b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    writer.create_element("testsuites").write_inner_content(|writer| {
        let suite = writer.create_element("testsuite").with_attributes([
            ("name", "verikd check"),
            ("package", "verikd"),
            ("id", "0"),
            ("timestamp", timestamp.as_str()),
            ("hostname", "localhost"),
            ("tests", tests.as_str()),
            ("failures", failures.as_str()),
            ("errors", errors.as_str()),
            ("time", took.as_str()),
        ]);
        suite.write_inner_content(|writer| {
            writer.create_element("properties").write_inner_content(|writer| {
                for (name, value) in &properties {
                    let property = writer.create_element("property");
                    property.with_attributes([("name", *name), ("value", value.as_str())]).write_empty()?;
                }
                Ok(())
            })?;
            for (name, wrong) in cases {
                let name = line(name);
                let case = writer.create_element("testcase").with_attributes([
                    ("classname", "verikd.check"),
                    ("name", name.as_str()),
                    ("time", took.as_str()),
                ]);
                let Some(Wrong { element, kind, message, text }) = wrong else {
                    case.write_empty()?;
                    continue;
                };
                case.write_inner_content(|writer| {
                    let message = line(message);
                    let wrong = writer.create_element(*element);
                    let wrong = wrong.with_attributes([("type", *kind), ("message", message.as_str())]);
                    wrong.write_text_content(BytesText::new(&screened(text)))?;
                    Ok(())
                })?;
            }
            writer.create_element("system-out").write_empty()?;
            writer.create_element("system-err").write_text_content(BytesText::new(&screened(system_err)))?;
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}

/// A text of the target's on one line, without what XML does not allow.
fn line(text: &str) -> String {
    Escaped(text.trim()).to_string()
}
