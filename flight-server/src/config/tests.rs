use super::*;

const MINIMAL: &str = r#"
[postgres]
url = "postgresql://app:hunter2@db/app"
[lake]
url = "file:///srv/lake"
"#;

fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(text, Path::new("etc/thermocline.toml"), environment)
}

/// Asserts all faults of a configuration: one a line.
fn check_faults(text: &str, environment: &[(&str, &str)], expected: &[&str]) {
    let faults = parse(text, environment).expect_err("the configuration has faults").to_string();
    assert_eq!(faults.lines().collect::<Vec<_>>(), expected, "{faults}");
}

/// Asserts the faults of keys added after [`MINIMAL`]; the first added line is line 6.
fn check_added(added: &str, expected: &[&str]) {
    check_faults(&format!("{MINIMAL}{added}\n"), &[], expected);
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = parse(MINIMAL, &[]).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:32010");
    assert_eq!(config.server.admin_listen.to_string(), "127.0.0.1:32011");
    assert_eq!(config.lake.url, LakeUrl::Local(PathBuf::from("/srv/lake")));
    assert_eq!((config.lake.base.as_str(), config.lake.delta.as_str()), ("base/{schema_id}", "delta/{schema_id}"));
    assert_eq!(config.lake.catalog, LakeCatalog::Listing);
    assert_eq!(config.catalog.path, Path::new("etc/catalog.toml"));
    assert_eq!(config.query.defaults, QueryOptions::default());
    assert_eq!(config.postgres.tables.change_log.to_string(), "\"change_log\"");
    let breaker = BreakerConfig { failures: 5, window: Duration::from_secs(30), cooldown: Duration::from_secs(10) };
    assert_eq!(config.breaker, breaker);
    assert!(config.auth.anonymous);
    assert!(config.tls.is_none());
}

#[test]
fn secrets_never_print() {
    let text = format!("{MINIMAL}[lake.s3]\naccess_key_id = \"AKIA\"\nsecret_access_key = \"s3cr3t\"\n");
    let config = parse(&text, &[]).unwrap();
    let printed = format!("{config:?} {config:#?} {}", config.postgres.url);
    assert!(!printed.contains("hunter2") && !printed.contains("s3cr3t"), "{printed}");
    assert_eq!(config.postgres.url.expose(), "postgresql://app:hunter2@db/app");
}

#[test]
fn the_environment_overrides_and_completes() {
    let config = parse(
        "[lake]\nurl = \"file:///srv/lake\"\n",
        &[
            ("THERMOCLINE__POSTGRES__URL", "postgresql://u:p@h/d"),
            ("THERMOCLINE__POSTGRES__POOL_SIZE", "3"),
            ("THERMOCLINE__LAKE__URL", "s3://bucket/some/prefix/"),
            ("THERMOCLINE__LAKE__S3__ENDPOINT", "http://localhost:9000"),
            ("THERMOCLINE__LAKE__S3__ALLOW_HTTP", "true"),
            ("THERMOCLINE__QUERY__TIERS", "hot,warm"),
            ("THERMOCLINE__SERVER__LISTEN", "localhost:0"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(config.postgres.url.expose(), "postgresql://u:p@h/d");
    assert_eq!(config.postgres.pool_size, 3);
    let url = LakeUrl::S3 { bucket: "bucket".to_owned(), prefix: "some/prefix".to_owned() };
    assert_eq!(config.lake.url, url);
    assert!(config.lake.s3.allow_http);
    assert_eq!(config.query.defaults.tiers.to_string(), "hot,warm");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:0");
}

#[test]
fn all_faults_come_together() {
    check_faults(
        r#"
[server]
listen = "everywhere"
adminlisten = "127.0.0.1:1"

[lake]
url = "gs://bucket"
delta = "delta"

[query]
consistency = "weak"
max_concurrent = 0

[breakers]
"#,
        &[("THERMOCLINE__DUCKDB__THREADS", "many"), ("THERMOCLINE__LAKE__COLOUR", "red")],
        &[
            "etc/thermocline.toml: postgres.url: is missing; expected a URL such as \
             postgresql://user:password@host:5432/database",
            "etc/thermocline.toml:3: server.listen: expected an address such as 127.0.0.1:32010 or [::]:32010",
            "etc/thermocline.toml:4: server.adminlisten: unknown key; did you mean `admin_listen`?",
            "etc/thermocline.toml:7: lake.url: expected s3://bucket/prefix or file:///directory",
            "etc/thermocline.toml:8: lake.delta: `delta`: expected {schema_id} or {schema_name} in it: each entity has \
             its own prefix",
            "etc/thermocline.toml:11: query.consistency: cannot be `weak`; expected strict or eventual",
            "etc/thermocline.toml:12: query.max_concurrent: expected an integer from 1 to 100000",
            "etc/thermocline.toml:14: breakers: unknown key; did you mean `breaker`?",
            "THERMOCLINE__LAKE__COLOUR: lake.colour: unknown key; expected url, catalog, base, delta, s3",
            "THERMOCLINE__DUCKDB__THREADS: duckdb.threads: expected an integer from 1 to 4096",
        ],
    );
}

#[test]
fn a_bad_postgres_url_is_not_printed() {
    let text = "[postgres]\nurl = \"postgres//app:hunter2@db?sslmode=require\"\n[lake]\nurl = \"file:///srv/lake\"\n";
    check_faults(
        text,
        &[],
        &["etc/thermocline.toml:2: postgres.url: expected a URL such as postgresql://user:password@host:5432/database"],
    );
}

#[test]
fn each_fault_of_a_section() {
    for (added, expected) in [
        (
            "base = \"delta/{schema_id}/\"",
            "etc/thermocline.toml:4: lake.delta: is the same as `base`; a file's tier is known by its prefix",
        ),
        (
            "base = \"_base/{schema_id}\"",
            "etc/thermocline.toml:6: lake.base: `_base/{schema_id}`: expected no empty part and none that starts with \
             `_` or `.`: those are staging and never read",
        ),
        (
            "base = \"base/{schema_id}/{day}\"",
            "etc/thermocline.toml:6: lake.base: `base/{schema_id}/{day}`: expected no other placeholder than \
             {schema_id} and {schema_name}, and none of * ? [ ] \\ % #",
        ),
        (
            "[lake.s3]\nendpoint = \"http://h\"",
            "etc/thermocline.toml:6: lake.s3.endpoint: is plain http; expected https, or `allow_http = true` beside it",
        ),
        (
            "[lake.s3]\naccess_key_id = \"x\"",
            "etc/thermocline.toml:6: lake.s3.access_key_id: expected `access_key_id` and `secret_access_key` together, \
             or neither",
        ),
        (
            "[duckdb]\nmemory_limit = \"lots\"",
            "etc/thermocline.toml:7: duckdb.memory_limit: expected a size such as 512MiB, 4GB or 80%",
        ),
        (
            "[telemetry]\nlog_level = \"loud\"",
            "etc/thermocline.toml:7: telemetry.log_level: expected trace, debug, info, warn, error or off, or \
             directives such as flight_server=debug,info",
        ),
        ("[breaker]\nwindow = 30", "etc/thermocline.toml:7: breaker.window: is an integer; expected a string"),
        (
            "[tls]\ncertificate = \"a.pem\"",
            "etc/thermocline.toml:6: tls.private_key: is missing; expected `certificate` and `private_key` together",
        ),
        (
            "[auth]\nanonymous = false",
            "etc/thermocline.toml:7: auth.anonymous: nobody could log in; expected `access`, a file with users, beside \
             it, or true",
        ),
        (
            "[[auth.users]]\nname = \"ann\"\npassword_hash = \"hunter2\"",
            "etc/thermocline.toml:6: auth.users: is refused; expected [[user]] of the file that auth.access names",
        ),
        (
            "[server]\nlisten = \"0.0.0.0:32010\"",
            "etc/thermocline.toml: auth.anonymous: server.listen 0.0.0.0:32010 can be reached from other machines; \
             expected `anonymous = true` in words, or `access`, a file with users",
        ),
    ] {
        check_added(added, &[expected]);
    }
}

#[test]
fn anonymous_is_said_in_words_or_there_are_users() {
    let open = parse(&format!("{MINIMAL}[server]\nlisten = \"0.0.0.0:1\"\n[auth]\nanonymous = true\n"), &[]).unwrap();
    assert!(open.auth.anonymous);
    let closed = parse(&format!("{MINIMAL}[auth]\naccess = \"access.toml\"\n"), &[]).unwrap();
    assert!(!closed.auth.anonymous);
    assert_eq!(closed.auth.access.as_deref(), Some(Path::new("etc/access.toml")));
    let far = format!("{MINIMAL}[server]\nlisten = \"0.0.0.0:1\"\n[auth]\naccess = \"access.toml\"\n");
    assert!(parse(&far, &[]).unwrap_err().to_string().contains("would cross the network"));
    assert!(parse(&format!("{far}insecure_transport = true\n"), &[]).is_ok());
}

#[test]
fn query_defaults_take_toml_and_text_forms() {
    let text = format!(
        "{MINIMAL}[query]\ntiers = [\"hot\", \"cold\"]\nmax_rows = 10\nallow_partial = true\ntimeout = \"2s\"\n"
    );
    let defaults = parse(&text, &[]).unwrap().query.defaults;
    assert_eq!(defaults.tiers.to_string(), "hot,cold");
    assert_eq!((defaults.max_rows, defaults.allow_partial), (Some(10), true));
    assert_eq!(defaults.timeout, Some(Duration::from_secs(2)));
}

#[test]
fn syntax_errors_stand_alone() {
    check_faults(
        "[server]\nlisten = \n[lake]\n",
        &[],
        &["etc/thermocline.toml:2: string values must be quoted, expected literal string"],
    );
}

#[test]
fn a_missing_file_is_a_fault() {
    let faults = Config::load(Path::new("/nonexistent/thermocline.toml"), []).unwrap_err().to_string();
    assert!(faults.starts_with("/nonexistent/thermocline.toml: cannot read the configuration file"), "{faults}");
}

#[test]
fn table_names_may_have_a_schema() {
    let table = TableName::parse("app.Change\"Log").unwrap();
    assert_eq!(table.to_string(), "\"app\".\"Change\"\"Log\"");
    assert!(TableName::parse("a.b.c").is_none());
    assert!(TableName::parse(".b").is_none());
}
