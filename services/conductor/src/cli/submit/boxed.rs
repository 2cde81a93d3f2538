//! What a task asks of its sandbox, as flags say.

use conductor_protocol::human::{ByteSize, parse_bytes};
use conductor_protocol::terms::{Network, SandboxSpec};

/// What a task asks of its sandbox.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct BoxedArgs {
    /// What it is boxed in by: minimal, moderate or strict, or none, landlock, bubblewrap, podman or
    /// docker
    #[arg(long, value_name = "LEVEL|KIND", value_parser = super::wire::<SandboxSpec>)]
    sandbox: Option<SandboxSpec>,
    /// What it reaches from inside: none or full
    #[arg(long, value_parser = network)]
    network: Option<Network>,
    /// Memory of all its processes, such as 2g
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<ByteSize>,
    /// What all its files may take together, such as 10g
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    disk: Option<ByteSize>,
    /// Processors it may use, such as 1.5
    #[arg(long, value_name = "N", value_parser = cpus)]
    cpus: Option<u32>,
}

fn network(text: &str) -> Result<Network, String> {
    match text {
        "none" => Ok(Network::None),
        "full" => Ok(Network::Full),
        _ => Err(format!(
            "{text:?} is neither none nor full; hosts by name are for task files"
        )),
    }
}

fn bytes(text: &str) -> Result<ByteSize, String> {
    parse_bytes(text).ok_or_else(|| format!("{text:?} is no number of bytes; write 512m or 2g"))
}

/// In thousandths.
fn cpus(text: &str) -> Result<u32, String> {
    let number: f64 = text.parse().unwrap_or(f64::NAN);
    if (0.001..=1_000.0).contains(&number) {
        Ok((number * 1_000.0).round() as u32)
    } else {
        Err(format!(
            "{text:?} is no number of processors; write 2 or 0.5"
        ))
    }
}

impl BoxedArgs {
    /// What is asked for, if anything is.
    pub(super) fn spec(&self) -> Option<SandboxSpec> {
        let spec = SandboxSpec {
            network: self.network.clone().unwrap_or_default(),
            memory: self.memory,
            disk: self.disk,
            cpu_millis: self.cpus,
            ..self.sandbox.clone().unwrap_or_default()
        };
        (spec != SandboxSpec::default()).then_some(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_in_thousandths() {
        assert_eq!(cpus("1.5"), Ok(1_500));
        assert_eq!(cpus("0.001"), Ok(1));
        for text in ["0", "-1", "many", "inf", "NaN"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_that_is_asked_for_is_no_terms() {
        assert_eq!(BoxedArgs::default().spec(), None);
        let memory = BoxedArgs {
            memory: Some(bytes("2g").unwrap()),
            ..BoxedArgs::default()
        };
        assert_eq!(memory.spec().unwrap().memory, Some(ByteSize(2 << 30)));
    }
}
