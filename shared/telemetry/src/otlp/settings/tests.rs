//! What variables may say.

use opentelemetry_otlp::Protocol;

use super::*;

fn read(pairs: &[(&'static str, &str)]) -> Result<Option<Otlp>, ExportError> {
    Otlp::from(&|name| {
        let found = pairs.iter().find(|(n, _)| *n == name);
        found.map(|(_, v)| (*v).to_owned())
    })
}

const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

#[test]
fn without_an_endpoint_nothing_is_exported() {
    assert_eq!(read(&[]), Ok(None));
    assert_eq!(read(&[HTTP, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
    assert_eq!(read(&[HTTP, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
}

#[test]
fn the_protocol_is_as_named_or_as_the_port_says() {
    let of = |pairs: &[_]| read(pairs).unwrap().unwrap().protocol;
    assert_eq!(of(&[HTTP]), Protocol::HttpBinary);
    let grpc = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317/");
    assert_eq!(of(&[grpc]), Protocol::Grpc);
    let named = |name, value| of(&[grpc, (name, value)]);
    assert_eq!(
        named("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        Protocol::HttpBinary
    );
    assert_eq!(
        named("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        Protocol::HttpJson
    );
}

#[test]
fn of_grpc_alone_an_endpoint_may_come_without_a_scheme() {
    let of = |endpoint, more: &[(&'static str, &'static str)]| {
        let mut pairs = vec![("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)];
        pairs.extend(more);
        Ok::<_, ExportError>(read(&pairs)?.unwrap().endpoint)
    };
    assert_eq!(of("there:4317", &[]).unwrap(), "https://there:4317");
    let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
    assert_eq!(of("there:4317", &[insecure]).unwrap(), "http://there:4317");
    let secured = of("https://there:4317", &[insecure]);
    assert_eq!(secured.unwrap(), "https://there:4317");
    for wrong in ["there:4318", "unix:///run/there:4317"] {
        let said = of(wrong, &[]).unwrap_err().to_string();
        let expected = format!(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={wrong:?} is not a URL that begins with http:// or \
             https://"
        );
        assert_eq!(said, expected);
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    for (name, value, said) in [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/xml",
            "OTEL_EXPORTER_OTLP_PROTOCOL=\"http/xml\" is not grpc, http/protobuf or http/json",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
            "zstd",
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION=\"zstd\" is not gzip or none",
        ),
        (
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "10s",
            "OTEL_EXPORTER_OTLP_TIMEOUT=\"10s\" is not a number of milliseconds above 0",
        ),
        (
            "OTEL_TRACES_EXPORTER",
            "zipkin",
            "OTEL_TRACES_EXPORTER=\"zipkin\" is not otlp or none, which are the exporters there are",
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "api-key=hush,hush-hush",
            "OTEL_EXPORTER_OTLP_HEADERS: entry 2 is not name=value, of characters that a header may \
             have",
        ),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
            "/here.pem",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=\"/here.pem\": OTEL_EXPORTER_OTLP_CLIENT_KEY is \
             not set, and one needs the other",
        ),
    ] {
        let read = read(&[HTTP, (name, value)]);
        assert_eq!(read.unwrap_err().to_string(), said);
    }
    for headers in ["a=b,c=d", "Authorization=Basic%20aGFsbG8=", "a=b,"] {
        assert!(read(&[HTTP, ("OTEL_EXPORTER_OTLP_HEADERS", headers)]).is_ok());
    }
    for headers in ["a b=c", "a=%00", "=a", "a="] {
        assert!(read(&[HTTP, ("OTEL_EXPORTER_OTLP_HEADERS", headers)]).is_err());
    }
}

#[test]
fn what_changes_nothing_is_known() {
    let set = [
        "PATH",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
        "OTEL_PROPAGATORS",
        "OTEL_BSP_SCHEDULE_DELAY",
    ];
    let of = |endpoint| {
        let otlp = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]);
        let names = set.iter().map(|n| (*n).to_owned());
        otlp.unwrap().unwrap().ignored(names)
    };
    let never = ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_PROPAGATORS"];
    assert_eq!(of("https://there:4318"), never);
    // Where nothing is secured nobody is asked for a certificate.
    let [first, second] = never;
    assert_eq!(
        of("http://there:4318"),
        [first, "OTEL_EXPORTER_OTLP_CERTIFICATE", second]
    );
}

#[test]
fn a_file_that_is_none_is_refused_by_name() {
    let dir = std::env::temp_dir().join(format!("conductor-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("nothing.pem").display().to_string();
    for (content, said) in [(None, "No such file"), (Some("x"), "no certificate in it")] {
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        for protocol in ["grpc", "http/protobuf"] {
            let pairs = [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://there:4317"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", path.as_str()),
            ];
            let otlp = read(&pairs).unwrap().unwrap();
            let problem = otlp.exporter(&[]).unwrap_err().to_string();
            let name = format!("OTEL_EXPORTER_OTLP_CERTIFICATE={path:?}: ");
            assert!(
                problem.starts_with(&name) && problem.contains(said),
                "{problem}"
            );
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn samplers_are_those_of_the_specification() {
    let of = |name, arg| {
        let pairs = [
            HTTP,
            ("OTEL_TRACES_SAMPLER", name),
            ("OTEL_TRACES_SAMPLER_ARG", arg),
        ];
        read(&pairs).map(|o| o.map(|o| (o.ratio, o.follows_caller)))
    };
    assert_eq!(
        of("parentbased_traceidratio", "0.25"),
        Ok(Some((0.25, true)))
    );
    assert_eq!(of("always_off", "0.25"), Ok(Some((0.0, false))));
    assert_eq!(of("always_on", "endpoint=x"), Ok(Some((1.0, false))));
    assert!(of("sometimes", "1").is_err());
    assert!(of("traceidratio", "2").is_err());
    assert_eq!(
        of("traceidratio", "x").unwrap_err().to_string(),
        "OTEL_TRACES_SAMPLER_ARG=\"x\" is not a number from 0 to 1"
    );
}
