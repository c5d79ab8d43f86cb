//! `verikd bridge`: a target that has only a serial line, for debuggers that speak KDNET.

use std::io::{self, Write};

use bytes::Bytes;
use kd_protocol::link::BridgeEvent;
use verikd::key::{KeyOrigin, KeyText};
use verikd::session::bridge::{Bridge, BridgeConfig, BridgeNews};
use verikd::session::{ComLine, Connection};

use super::exit::{FAILED, USAGE, fail};
use super::prompt_answer::PromptAnswer;
use super::visible_key::warn_of_visible_key;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The target's line, as -k names it: com:pipe,port=PATH[,reconnect], com:ipport=5003,port=HOST or
    /// com:port=DEVICE,baud=115200
    #[arg(long, value_name = "CONNECTION")]
    from: KeyText,
    /// Where the debugger is: net:hostip=127.0.0.1,port=50000,key=1.2.3.4, its address, its port and the key it is given
    #[arg(long, value_name = "CONNECTION")]
    to: KeyText,
    /// What a prompt of the target is answered while no debugger is connected: i ignores, b breaks
    #[arg(long, value_name = "ANSWER", value_enum, default_value_t)]
    prompt_answer: PromptAnswer,
}

pub(super) fn run(options: &Options) -> u8 {
    let (config, key_origin) = match config_of(options) {
        Ok(config) => config,
        Err(error) => {
            say(&format!("verikd: {error}"));
            return USAGE;
        }
    };
    warn_of_visible_key(key_origin, config.to.ip().is_loopback(), "key=@FILE");
    let (from, to) = (config.from.port.to_string(), config.to);
    let advice = config.from.port.advice();
    let bridge = match Bridge::start(config) {
        Ok(bridge) => bridge,
        Err(error) => return fail(&error),
    };
    let mut code = 0;
    while let Some(news) = bridge.next_news(None) {
        say(&match news {
            BridgeNews::Offers(address) => {
                format!("The target at {from} is offered to {to} from UDP {address}; Ctrl+C ends the bridge")
            }
            BridgeNews::LineNotThere(why) => format!("Waiting for {from}: {why}. {advice}"),
            BridgeNews::LineThere => format!("{from} is there"),
            BridgeNews::LineEndsAtOnce(why) => {
                format!(
                    "{from} takes the connection and ends it at once ({why}); trying again, less and less often"
                )
            }
            BridgeNews::Event(event) => match event {
                BridgeEvent::TargetHeard => "The target talks".into(),
                BridgeEvent::TargetRestarted => "The target restarted, or had given its debugger up".into(),
                BridgeEvent::LineEnded => format!("{from} has ended"),
                BridgeEvent::LineBack => "The target may be another one, or have restarted".into(),
                BridgeEvent::Debugger(host) => format!("Connected to the debugger at {host}"),
                BridgeEvent::DebuggerAbsent => "The debugger does not acknowledge any more".into(),
                BridgeEvent::ResumeUnproven => {
                    "The target was told to run and does not answer: it may be stopped still".into()
                }
                BridgeEvent::PromptAnswered(answer) => {
                    format!("The target's prompt was answered: {}", String::from_utf8_lossy(&answer))
                }
            },
            BridgeNews::LineLost(why) => {
                code = FAILED;
                format!("The bridge ends, since {from} has ended: {why}; with reconnect it would wait for it")
            }
            BridgeNews::Ended => "The bridge ends; a stopped target is let go".into(),
        });
    }
    code
}

fn config_of(options: &Options) -> Result<(BridgeConfig, Option<KeyOrigin>), String> {
    let parse = |option: &str, text: &str| {
        Connection::parse(text).map_err(|error| error.of_option(option).to_string())
    };
    let from: ComLine = match parse("--from", options.from.as_str())?.0 {
        Connection::Com(line) => line,
        Connection::Net { .. } => return Err("--from takes a serial line, like com:pipe,port=PATH".into()),
    };
    match parse("--to", options.to.as_str())? {
        (Connection::Net { listen, key, target: None }, origin) if !listen.ip().is_unspecified() => {
            let config = BridgeConfig {
                from,
                to: listen,
                key,
                prompt_answer: Bytes::from_static(options.prompt_answer.text().as_bytes()),
                handle_signals: true,
            };
            Ok((config, origin))
        }
        _ => {
            Err("--to takes the debugger's address, like net:hostip=127.0.0.1,port=50000,key=1.2.3.4".into())
        }
    }
}

fn say(text: &str) {
    // Status is not worth dying for.
    let _ = writeln!(io::stderr(), "{text}");
}
