use super::*;
use clap::CommandFactory;
use clap::error::ErrorKind;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(std::iter::once("mcp").chain(line.split_whitespace())).map(|cli| cli.command)
}

fn send(line: &str) -> SendArgs {
    match parse(line) {
        Ok(Command::Send(args)) => args,
        other => panic!("{line}: {other:?}"),
    }
}

fn recv(line: &str) -> RecvArgs {
    match parse(line) {
        Ok(Command::Recv(args)) => args,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn classes_of_datagrams() {
    for (text, point) in [
        ("0", Some(0)),
        ("63", Some(63)),
        ("64", None),
        ("EF", Some(46)),
        ("le", Some(1)),
        ("va", Some(44)),
        ("cs0", Some(0)),
        ("cs7", Some(56)),
        ("cs8", None),
        ("af11", Some(10)),
        ("af43", Some(38)),
        ("af44", None),
        ("af51", None),
        ("af01", None),
        ("", None),
        ("-1", None),
    ] {
        assert_eq!(parse_dscp(text).ok(), point, "{text}");
    }
}

#[test]
fn clap_finds_no_fault() {
    Cli::command().debug_assert();
}

#[test]
fn send_defaults() {
    let args = send("send image.iso");
    assert_eq!(args.file, Some(PathBuf::from("image.iso")));
    assert_eq!((args.more, args.interface, args.rate, args.receivers), (vec![], None, None, None));
    assert_eq!((args.port, args.ttl, args.symbol_size, args.report), (7417, 1, None, None));
    assert_eq!((args.wait, args.linger, args.slow), (None, Duration::ZERO, Slow::Defer));
    assert!(args.output.json.is_none() && !args.output.quiet && !args.output.verbose);
}

#[test]
fn send_in_full() {
    let args = send(
        "send image.iso 239.1.1.1 -n 30 --wait 60s --rate 800M -i eth1 -p 9000 --linger 10m --max-time 2h --ttl 4 \
         --symbol-size 1024 --report done.json --json -v",
    );
    assert_eq!(args.more, ["239.1.1.1"]);
    assert_eq!(args.interface.as_deref(), Some("eth1"));
    assert_eq!((args.rate, args.receivers), (Some(RateChoice::Fixed(Rate(800_000_000))), Some(30)));
    assert_eq!((args.wait, args.linger), (Some(Duration::from_secs(60)), Duration::from_secs(600)));
    assert_eq!(args.max_time, Some(Duration::from_secs(7200)));
    assert_eq!((args.port, args.ttl, args.symbol_size), (9000, 4, Some(1024)));
    assert_eq!(args.report, Some(PathBuf::from("done.json")));
    assert!(args.output.json == Some(None) && args.output.verbose);
    // A word that follows is no file for the events.
    assert_eq!(send("send f --json 239.1.1.1").more, ["239.1.1.1"]);
    assert_eq!(recv("recv --json=/dev/fd/3 -q").show.json, Some(Some(PathBuf::from("/dev/fd/3"))));
}

#[test]
fn names_with_leading_dashes() {
    assert_eq!(send("send -- -file").file, Some(PathBuf::from("-file")));
    assert_eq!(send("send -- -file 239.1.1.1").more, ["239.1.1.1"]);
    assert_eq!(send("send ./-file").file, Some(PathBuf::from("./-file")));
    assert_eq!(recv("recv -o ./-dir").output, PathBuf::from("./-dir"));
    assert_eq!(recv("recv --output=-dir").output, PathBuf::from("-dir"));
    assert!(parse("send -file").is_err());
}

#[test]
fn names_that_are_not_unicode() {
    use std::os::unix::ffi::OsStringExt;
    let name = std::ffi::OsString::from_vec(b"a\xff".to_vec());
    let cli = Cli::try_parse_from(["mcp".into(), "send".into(), name.clone()]).unwrap();
    assert!(matches!(cli.command, Command::Send(args) if args.file == Some(name.into())));
}

#[test]
fn recv_as_typed() {
    let args = recv("recv");
    assert_eq!((args.group, args.id, args.output), (None, None, PathBuf::from(".")));
    assert_eq!((args.timeout, args.force, args.port), (None, false, 7417));
    assert_eq!((args.then, args.again, args.any_sender), (None, false, false));
    assert_eq!((args.from, recv("recv --from old.iso").from), (None, Some(PathBuf::from("old.iso"))));
    let args = recv("recv ff05::1 -o /srv/images --id lab-07 --timeout 5m --force -q -i 10.0.0.1 -p 1");
    assert_eq!(args.group.as_deref(), Some("ff05::1"));
    assert_eq!((args.id.as_deref(), args.output), (Some("lab-07"), PathBuf::from("/srv/images")));
    assert_eq!((args.timeout, args.force, args.port), (Some(Duration::from_secs(300)), true, 1));
    assert!(args.show.quiet);
    let args = Cli::try_parse_from(["mcp", "recv", "--loop", "--any-sender", "--then", "echo $MCP_PATH"]);
    let Ok(Command::Recv(args)) = args.map(|cli| cli.command) else { panic!("it is understood") };
    assert_eq!((args.then, args.again, args.any_sender), (Some("echo $MCP_PATH".into()), true, true));
}

#[test]
fn rates() {
    let table = [
        ("64000", 64_000),
        ("950k", 950_000),
        ("800M", 800_000_000),
        ("1G", 1_000_000_000),
        ("1g", 1_000_000_000),
        ("2.5G", 2_500_000_000),
        ("1T", 1_000_000_000_000),
    ];
    for (text, bits) in table {
        assert_eq!(parse_rate(text), Ok(Rate(bits)), "{text}");
    }
    for text in
        ["", "k", "0", "1", "63k", "2T", "-1M", "1MB", "1MiB", "1e9", "inf", "nan", "1..5M", "1 M", "１M"]
    {
        assert!(parse_rate(text).is_err(), "{text}");
    }
}

#[test]
fn rates_that_find_themselves() {
    for (text, ceiling) in
        [("auto", None), ("auto:800M", Some(Rate(800_000_000))), ("auto:64k", Some(Rate(64_000)))]
    {
        assert_eq!(send(&format!("send f -r {text}")).rate, Some(RateChoice::Auto(ceiling)), "{text}");
    }
    let told = |text: &str| match parse(&format!("send f --rate {text}")) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{text}"),
    };
    let form = "write auto, auto:800M, or bits per second as 950k, 800M or 2.5G";
    for (text, needle) in [
        ("auto:", form),
        ("auto:x", form),
        ("auto:auto", form),
        ("autox", form),
        ("AUTO", form),
        ("800M:auto", form),
        ("fast", form),
        ("auto:1k", "write 64k or more"),
        ("auto:2T", "write 1T or less"),
    ] {
        assert!(told(text).contains(needle), "{}", told(text));
    }
}

#[test]
fn policies_for_slow_devices() {
    for (text, slow) in [("defer", Slow::Defer), ("keep", Slow::Keep), ("drop", Slow::Drop)] {
        assert_eq!(send(&format!("send f --slow {text}")).slow, slow);
    }
    let error = parse("send f --slow x").unwrap_err().to_string();
    assert!(error.contains("defer, keep, drop"), "{error}");
}

#[test]
fn durations() {
    let table = [
        ("0", 0.0),
        ("90", 90.0),
        ("1.5", 1.5),
        ("60s", 60.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("250ms", 0.25),
    ];
    for (text, seconds) in table {
        assert_eq!(parse_duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
    }
    assert_eq!(send("send f --linger forever").linger, FOREVER);
    assert_eq!(send("send f --linger 1m").linger, Duration::from_secs(60));
    for text in ["", "-1", "x", "1x", "1e3", "inf", "99999999999999999999999999"] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}

#[test]
fn what_makes_no_sense_is_usage() {
    let table = [
        "",
        "copy a",
        "send",
        "send a -n 0",
        "send a -n 16385",
        "send a -n x",
        "send a -p 0",
        "send a -p 65536",
        "send a --ttl 256",
        "send a --symbol-size 1400",
        "send a --symbol-size 0",
        "send a --symbol-size 8960",
        "send a -r 1MB",
        "send a -r auto:",
        "send a --slow x",
        "send a --slow",
        "send a --wait soon",
        "send - --window 1M",
        "send - --window 2T",
        "send - --window all",
        "send - --window 64M --spool d",
        "send a -q -v",
        "send a --force",
        "recv a b",
        "recv -q -v",
        "recv --id=",
        "recv -n 3",
        "recv --then",
        "recv --any-sender --require-signed",
        "recv --timeout forever",
        "send a --linger ever",
        "-v",
        "-v recv",
    ];
    for line in table {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.use_stderr(), "{line}");
    }
    let long = "x".repeat(65);
    assert!(parse_name(&long).is_err() && parse_name("a\tb").is_err() && parse_name(&long[1..]).is_ok());
}

#[test]
fn help_and_version_are_no_errors() {
    for (line, kind) in [
        ("--version", ErrorKind::DisplayVersion),
        ("--version -v", ErrorKind::DisplayVersion),
        ("-vV", ErrorKind::DisplayVersion),
        ("--help", ErrorKind::DisplayHelp),
        ("help send", ErrorKind::DisplayHelp),
        ("recv -h", ErrorKind::DisplayHelp),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!((error.kind(), error.use_stderr()), (kind, false), "{line}");
    }
    for (line, code) in
        [("help send", "130  interrupted"), ("help recv", "7    the command of --pipe failed, or")]
    {
        assert!(parse(line).unwrap_err().to_string().contains(code), "{line}");
    }
}
