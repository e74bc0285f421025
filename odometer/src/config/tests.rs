//! The configuration as a whole: precedence, every error, the examples.

use std::path::Path;
use std::time::Duration;

use odometer_schemas::meter::Aggregation;

use super::document::Document;
use super::overrides::{KEYS, environment, variable_of};
use super::{Config, Overrides, check};

fn example(name: &str) -> Document {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    Document::read(&file).unwrap()
}

fn parse(text: &str) -> Result<Config, String> {
    let document = Document::parse("odometer.toml", text.into()).map_err(|error| error.to_string())?;
    check::check(&document).map_err(|error| error.to_string())
}

#[test]
fn nothing_configured_is_the_default() {
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn the_example_file_spells_out_every_default() {
    let document = example("odometer.toml");
    assert_eq!(check::check(&document).unwrap(), Config::default());
    for (key, _) in KEYS {
        assert_eq!(document.origin_of(key), "file", "examples/odometer.toml lacks {key}");
    }
}

#[test]
fn the_meters_example_shows_every_aggregation() {
    let config = check::check(&example("custom-meters.toml")).unwrap();
    let all = [
        Aggregation::Sum,
        Aggregation::Count,
        Aggregation::Min,
        Aggregation::Max,
        Aggregation::Avg,
        Aggregation::Latest,
        Aggregation::UniqueCount,
    ];
    for aggregation in all {
        assert!(config.meters.iter().any(|meter| meter.aggregation == aggregation), "{}", aggregation.name());
    }
    config.definitions().validate().unwrap();
}

#[test]
fn every_error_names_key_line_and_fix() {
    let cases = [
        ("[server]\nlisten = 'here'", "odometer.toml:2: `server.listen` must be HOST:PORT"),
        ("[server]\nlisten = 'example.com:80'", "odometer.toml:2: `server.listen` must be HOST:PORT"),
        ("[server]\ndata_dir = ''", "odometer.toml:2: `server.data_dir` must name a directory"),
        ("[server]\npartitions = 0", "odometer.toml:2: `server.partitions` must be 1 to 1024"),
        ("[server]\npartitions = 1025", "odometer.toml:2: `server.partitions` must be 1 to 1024"),
        ("[server]\npartitions = '4'", "odometer.toml:2: `server.partitions` invalid type: string"),
        ("[server]\nport = 1", "odometer.toml:2: `server.port` unknown field `port`, expected one of"),
        ("[dedupe]\nwindow = '35 days'", "odometer.toml:2: `dedupe.window` must be a duration such as"),
        ("[dedupe]\nwindow = '59m'", "odometer.toml:2: `dedupe.window` must be 1h to 400d, not `59m`"),
        ("[dedupe]\nwindow = '36d'", "odometer.toml: `log.retention` is 40d, but must be longer than 40d12h"),
        ("[log]\nretention = '35d'", "odometer.toml:2: `log.retention` is 35d, but must be longer than 39d9h"),
        ("[time]\nfuture_max = '25h'", "odometer.toml:2: `time.future_max` must be 0s to 1d"),
        ("[hash]\nseed = -1", "odometer.toml:2: `hash.seed` must be 0 to 2^64-1"),
        ("[hash]\nseed = 'x'", "odometer.toml:2: `hash.seed` must be 0 to 2^64-1"),
        ("[hash]\nseed = true", "odometer.toml:2: `hash.seed` must be a whole number"),
        ("[limits]\nbody_bytes_max = 1", "odometer.toml:2: `limits.body_bytes_max` must be 16384 to"),
        (
            "[limits]\nbody_bytes_max = 2000000\ninflated_bytes_max = 1000000",
            "odometer.toml:3: `limits.inflated_bytes_max` must be at least `limits.body_bytes_max`",
        ),
        ("[limits]\nrecords_max = 0", "odometer.toml:2: `limits.records_max` must be 1 to"),
        ("[books]\ncommit_interval = '1ms'", "odometer.toml:2: `books.commit_interval` must be 10ms to 1m"),
        ("[raw]\ngather_rows_max = 1", "odometer.toml:2: `raw.gather_rows_max` must be 1000 to"),
        ("[raw]\ngather_interval = '1h'", "odometer.toml:2: `raw.gather_interval` must be 10ms to 5m"),
        ("[snapshots]\ninterval = '0s'", "odometer.toml:2: `snapshots.interval` must be 1s to 1d"),
        ("[server]\nroles = 'gate'", "odometer.toml:2: `server.roles` must be some of"),
        ("[server]\npublic_url = 'node:1'", "odometer.toml:2: `server.public_url` must be empty or a URL"),
        ("[kafka]\nbrokers = ' '", "odometer.toml:2: `kafka.brokers` must not be empty"),
        ("[kafka]\nreplication = 0", "odometer.toml:2: `kafka.replication` must be 1 to 9"),
        ("[kafka.properties]\nlinger.ms = 5", "odometer.toml:2: `kafka.properties.linger` must be a text"),
        (
            "[bridge]\ningress_topic = 'a'\ndead_letter_topic = 'a'",
            "odometer.toml:3: `bridge.dead_letter_topic` must differ from `bridge.ingress_topic`, which is `a` too",
        ),
        ("[bridge]\ningress_topic = 'odometer.usage'", "odometer.toml:2: `bridge.ingress_topic` must differ from"),
        ("[bridge]\ngroup = 'odometer-raw'", "odometer.toml:2: `bridge.group` must differ from the groups"),
        ("[clickhouse]\nttl_days = -1", "odometer.toml:2: `clickhouse.ttl_days` must be 0 to 36500"),
        ("[[meter]]\nname = 'a b'\nunit = 'x'\nbase_unit = 'x'", "odometer.toml:2: `meter[0].name` of `a b` may hold"),
        ("[[meter]]\nname = 'a'\nunit = 'x'", "odometer.toml:1: `meter[0]` missing field `base_unit`"),
        (
            "[[meter]]\nname = 'a'\nunit = 'x'\nbase_unit = 'x'\naggregation = 'median'",
            "odometer.toml:5: `meter[0].aggregation` unknown variant `median`, expected one of",
        ),
        (
            "[[meter]]\nname='a'\nunit='x'\nbase_unit='x'\n[[meter]]\nname='a'\nunit='x'\nbase_unit='x'",
            "odometer.toml:6: `meter[1].name` `a` is defined twice",
        ),
        (
            "[quota]\ndefault_plan = 'gold'",
            "odometer.toml:2: `quota.default_plan` names no plan; there are enterprise,",
        ),
        ("[quota]\ngrpc_listen = 'here'", "odometer.toml:2: `quota.grpc_listen` must be empty or HOST:PORT"),
        ("[envoy]\nsubject = 'tenant'", "odometer.toml:2: `envoy.subject` must differ from `envoy.tenant`"),
        ("[envoy]\ndefault_meter = 'calls'", "odometer.toml:2: `envoy.default_meter` names no meter"),
        ("[envoy]\nhold = '0s'", "odometer.toml:2: `envoy.hold` must be 1s to 1d"),
        ("[envoy]\ndefault_hits = -1", "odometer.toml:2: `envoy.default_hits` must be 0 to"),
        (
            "[[plan]]\nname = 'a'\n[[plan.limit]]\nmeter = 'nope'\nlimit = 1",
            "odometer.toml:4: `plan[0].limit[0].meter` `nope` is not defined; define it with [[meter]]",
        ),
        (
            "[[plan]]\nname = 'a'\n[[plan.limit]]\nmeter = 'api_call'\nlimit = '2h'",
            "odometer.toml:5: `plan[0].limit[0].limit` not a decimal number: `2h` call of `api_call`",
        ),
        (
            "[[plan]]\nname = 'a'\n[[plan.limit]]\nmeter = 'api_call'\nlimit = 1.5",
            "odometer.toml:5: `plan[0].limit[0].limit` must be whole base units",
        ),
        ("[[plan]]\nname = 'a b'", "odometer.toml:1: `plan[0]` is wrong: its name must be"),
        ("[[plan]]\nname = 'a'\n[[plan]]\nname = 'a'", "odometer.toml:4: `plan[1].name` `a` is defined twice"),
        (
            "[[meter]]\nname='agent_minute'\nunit='ms'\nbase_unit='ms'\naggregation='max'",
            "odometer.toml:1: `meter` is limited by the built-in plan `enterprise`: meter `agent_minute` does not add up",
        ),
        ("[sever]", "odometer.toml:1: `sever` unknown field `sever`"),
        ("server = 1", "odometer.toml:1: `server` invalid type: integer"),
        ("[server", "odometer.toml:1: is not valid TOML"),
    ];
    for (text, expected) in cases {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(expected), "{text}\n{error}\nshould start with\n{expected}");
    }
}

#[test]
fn flags_win_over_the_environment_that_over_the_file() {
    let text = "[server]\nlisten = '127.0.0.1:1'\npartitions = 2\n[dedupe]\nwindow = '2h'\n";
    let mut document = Document::parse("odometer.toml", text.into()).unwrap();
    let variables = |name: &str| match name {
        "ODOMETER_LISTEN" => Ok("localhost:2".into()),
        "ODOMETER_PARTITIONS" => Ok("1_0".into()),
        "ODOMETER_DATA_DIR" => Ok("/tmp/x".into()),
        "ODOMETER_HASH_SEED" => Ok("0xffff_ffff_ffff_ffff".into()),
        "ODOMETER_LOG_RETENTION" => Ok(String::new()),
        _ => Err(std::env::VarError::NotPresent),
    };
    environment(&mut document, variables).unwrap();
    let flags = Overrides { listen: Some("127.0.0.1:3".into()), ..Overrides::default() };
    flags.lay_over(&mut document).unwrap();
    let config = check::check(&document).unwrap();
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.server.partitions, 10);
    assert_eq!(config.server.data_dir, Path::new("/tmp/x"));
    assert_eq!(config.dedupe_window, Duration::from_secs(7200));
    assert_eq!(config.hash_seed, u64::MAX);
    assert_eq!(config.log_retention, Config::default().log_retention);
    let origins = [
        ("server.listen", "flag --listen"),
        ("server.partitions", "environment variable ODOMETER_PARTITIONS"),
        ("dedupe.window", "file"),
        ("log.retention", "default"),
    ];
    for (key, origin) in origins {
        assert_eq!(document.origin_of(key), origin, "{key}");
    }
}

#[test]
fn an_error_from_the_environment_or_a_flag_says_so() {
    let mut document = Document::empty();
    let error = environment(&mut document, |name| match name {
        "ODOMETER_PARTITIONS" => Ok("four".into()),
        _ => Err(std::env::VarError::NotPresent),
    });
    assert_eq!(
        error.unwrap_err().to_string(),
        "environment variable ODOMETER_PARTITIONS: `server.partitions` must be a whole number, not `four`"
    );
    let mut document = Document::empty();
    let flags = Overrides { partitions: Some(0), ..Overrides::default() };
    flags.lay_over(&mut document).unwrap();
    let error = check::check(&document).unwrap_err().to_string();
    assert_eq!(error, "flag --partitions: `server.partitions` must be 1 to 1024");
}

#[test]
fn variables_are_named_after_their_keys() {
    assert_eq!(variable_of("server.data_dir"), "ODOMETER_DATA_DIR");
    assert_eq!(variable_of("dedupe.window"), "ODOMETER_DEDUPE_WINDOW");
}

#[test]
fn a_meter_replaces_the_built_in_one_of_its_name() {
    let text = "[[meter]]\nname = 'api_call'\nunit = 'call'\nbase_unit = 'call'\naggregation = 'count'\n\
                [[meter]]\nname = 'storage'\nunit = 'GB'\nbase_unit = 'byte'\nscale = 9\n";
    let config = parse(text).unwrap();
    let definitions = config.definitions();
    assert_eq!(definitions.meters.len(), Config::default().meters.len() + 1);
    assert_eq!(definitions.meter("api_call").unwrap().aggregation, Aggregation::Count);
    assert_eq!(definitions.meter("storage").unwrap().scale, 9);
    definitions.validate().unwrap();
}

#[test]
fn a_plan_replaces_the_built_in_one_of_its_name() {
    let text = "[[plan]]\nname = 'pro'\n[[plan.limit]]\nmeter = 'agent_minute'\nlimit = '1h30min'\n\
                [[plan.limit]]\nmeter = 'agents'\nkind = 'concurrency'\n[[plan]]\nname = 'team'\n";
    let config = parse(text).unwrap();
    let names: Vec<_> = config.plans.iter().map(|plan| plan.name.as_str()).collect();
    assert_eq!(names, ["enterprise", "free", "pro", "starter", "team"]);
    assert_eq!(
        config.plans[2].limits,
        [
            odometer_schemas::quota::Limit::usage("agent_minute", Some(5_400_000)),
            odometer_schemas::quota::Limit::concurrency("agents", None),
        ]
    );
}

#[test]
fn the_default_definitions_are_the_built_in_ones() {
    assert_eq!(Config::default().definitions(), odometer_schemas::definitions::Definitions::built_in());
}

#[test]
fn the_printed_configuration_gives_itself_again() {
    let document = example("custom-meters.toml");
    let config = check::check(&document).unwrap();
    let printed = super::command::to_toml(&config, &document).unwrap();
    assert_eq!(parse(&printed).unwrap(), config, "{printed}");
    for (key, _) in KEYS {
        assert_ne!(super::command::value_of(&config, key), serde_json::Value::Null, "{key} is not printed");
    }
}
