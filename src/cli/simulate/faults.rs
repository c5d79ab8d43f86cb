//! Options of `verikd sim` that say how bad its network or line is.

use std::time::Duration;

use verikd_sim::Faults;

#[derive(Debug, clap::Args)]
pub(super) struct FaultOptions {
    /// Time to the debugger and back
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration, conflicts_with = "serial")]
    rtt: Duration,
    /// Each datagram takes up to this much longer, so that later ones overtake it
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration, conflicts_with = "serial")]
    jitter: Duration,
    /// Share of datagrams that are lost, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, conflicts_with = "serial")]
    loss: f64,
    /// Share of datagrams behind which a burst of them is lost, and how many it loses
    #[arg(long, value_name = "SHARE,N", default_value = "0,0", value_parser = burst, conflicts_with = "serial")]
    burst: (f64, u32),
    /// Share of datagrams that arrive twice, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, conflicts_with = "serial")]
    duplicate: f64,
    /// Share of datagrams behind which an earlier one arrives once more, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, conflicts_with = "serial")]
    replay: f64,
    /// Share of datagrams that later ones overtake, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, conflicts_with = "serial")]
    reorder: f64,
    /// Share of datagrams in which a bit is flipped, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, conflicts_with = "serial")]
    corrupt: f64,
    /// Share of datagrams that lose their end, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, conflicts_with = "serial")]
    truncate: f64,
    /// Share of the line's bytes that are lost or have a bit flipped, half of them each, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, requires = "serial")]
    noise: f64,
    /// Nothing arrives in this direction
    #[arg(long, value_name = "DIRECTION")]
    silence: Option<Direction>,
    /// Chooses what these hit, and what is damaged in the scenarios `corrupt` and `torn`
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Direction {
    ToHost,
    ToTarget,
}

impl FaultOptions {
    /// Towards the debugger, and towards the target.
    pub(super) fn of_each_direction(&self) -> (Faults, Faults) {
        let (burst, burst_length) = self.burst;
        let faults = |direction| Faults {
            round_trip: self.rtt,
            jitter: self.jitter,
            // A serial line has no other loss and damage, a network no noise.
            loss: self.loss + self.noise / 2.0,
            burst,
            burst_length,
            silence: self.silence == Some(direction),
            duplicate: self.duplicate,
            replay: self.replay,
            reorder: self.reorder,
            corrupt: self.corrupt + self.noise / 2.0,
            truncate: self.truncate,
            seed: self.seed,
        };
        (faults(Direction::ToHost), faults(Direction::ToTarget))
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1".into()),
    }
}

fn burst(text: &str) -> Result<(f64, u32), String> {
    let (often, length) =
        text.split_once(',').ok_or("write SHARE,N: 0.01,20 loses 20 behind one in a hundred")?;
    let length = length.parse().map_err(|_| "a burst loses a whole number of datagrams")?;
    Ok((share(often)?, length))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[arg(long)]
        serial: Option<String>,
        #[command(flatten)]
        faults: FaultOptions,
    }

    fn parse(line: &str) -> Result<(Faults, Faults), clap::Error> {
        Line::try_parse_from(format!("sim {line}").split_whitespace())
            .map(|line| line.faults.of_each_direction())
    }

    #[test]
    fn a_silence_has_a_direction_and_everything_else_has_both() {
        let (to_host, to_target) =
            parse("--jitter 5ms --burst 0.1,20 --truncate .5 --replay 1 --silence to-target").unwrap();
        let expected = Faults {
            jitter: Duration::from_millis(5),
            burst: 0.1,
            burst_length: 20,
            truncate: 0.5,
            replay: 1.0,
            ..Faults::default()
        };
        assert_eq!((to_host, to_target), (expected, Faults { silence: true, ..expected }));
    }

    #[test]
    fn noise_is_for_lines_and_the_rest_for_networks() {
        let (noisy, _) = parse("--serial x --noise 0.01").unwrap();
        assert_eq!(noisy, Faults { loss: 0.005, corrupt: 0.005, ..Faults::default() });
        assert!(parse("--noise 0.01").is_err() && parse("--serial x --loss 0.1").is_err());
        assert!(parse("--burst 0.1").unwrap_err().to_string().contains("write SHARE,N"));
    }
}
