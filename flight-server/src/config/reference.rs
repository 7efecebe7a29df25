//! Every key with its default and meaning: what `docs/configuration.md` shows, and the configuration in force as
//! `thermocline check --print-config` prints it. Tests hold both to the reader of the file.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Config, LakeCatalog, LogFormat};

/// A key, what it is without being written, and what it means.
type Key = (&'static str, &'static str, &'static str);

/// The keys of each section, in the order of the file.
pub const REFERENCE: [(&str, &[Key]); 13] = [
    (
        "server",
        &[
            ("listen", "`127.0.0.1:32010`", "Address of Flight SQL; port 0 takes any free one."),
            (
                "admin_listen",
                "`127.0.0.1:32011`",
                "Address of `/livez`, `/readyz` and `/metrics`; no query comes in here.",
            ),
            ("drain_limit", "`30s`", "Time of running queries to finish once the server is told to stop."),
            (
                "admin_token_file",
                "none",
                "File with the bearer token that `/metrics` and the body of `/readyz` ask for; must be written when `admin_listen` isn't loopback. Read again on SIGHUP.",
            ),
            ("max_connections", "`1000`", "Connections at most; more are closed at once."),
            ("max_connections_per_address", "`100`", "Connections of one address, of one /64 of IPv6, at most."),
            ("handshake_timeout", "`10s`", "A connection that hasn't begun to speak HTTP/2 by then is closed."),
        ],
    ),
    (
        "postgres",
        &[
            (
                "url",
                "required",
                "`postgresql://user:password@host/database`, or `key=value` words; several hosts are tried in turn.",
            ),
            ("hot_scan", "`copy`", "How hot rows reach DuckDB: `copy` or `scan`."),
            ("pool_size", "`16`", "Connections at most, so queries that read PostgreSQL at once."),
            ("connect_timeout", "`5s`", "For one attempt to connect, and for waiting for a free connection."),
            ("statement_timeout", "`60s`", "PostgreSQL's limit for each statement; `none` leaves the role's."),
            ("schema_registry", "`schema_registry`", "Table, or `schema.table`."),
            ("entity_main", "`entity_main`", "Table, or `schema.table`."),
            ("eav_data", "`eav_data`", "Table, or `schema.table`."),
            ("change_log", "`change_log`", "Table, or `schema.table`."),
            ("lake_file", "`lake_file`", "Table of the manifest, or `schema.table`."),
        ],
    ),
    (
        "hot",
        &[
            (
                "mirror",
                "`auto`",
                "`auto`: dirty rows of entities that are asked for are kept in memory, and queries share them; `off`: each query reads PostgreSQL.",
            ),
            ("memory_limit", "`512MiB`", "Bytes of these copies together; an entity beyond it is read by each query."),
            ("audit_interval", "`30s`", "How often a sample of the copies is compared with PostgreSQL."),
        ],
    ),
    (
        "lake",
        &[
            ("url", "required", "`s3://bucket/prefix` or `file:///directory`."),
            (
                "catalog",
                "`listing`",
                "Who knows the files: `listing` (the object store) or `manifest` (the table `lake_file`).",
            ),
            ("base", "`base/{schema_id}`", "Prefix of base files; `{schema_name}` works too."),
            ("delta", "`delta/{schema_id}`", "Prefix of delta files."),
        ],
    ),
    (
        "lake.s3",
        &[
            ("endpoint", "AWS", "URL of another S3 server."),
            ("region", "from the environment", "Region of the bucket."),
            ("access_key_id", "from the environment", "Without keys the usual AWS chain is asked."),
            ("secret_access_key", "from the environment", "Secret; never printed."),
            ("session_token", "none", "Secret of temporary keys; never printed."),
            ("allow_http", "`false`", "Whether the endpoint may be plain http."),
            (
                "path_style",
                "`true` with an endpoint",
                "`https://endpoint/bucket/key` instead of `https://bucket.endpoint/key`.",
            ),
        ],
    ),
    ("catalog", &[("path", "`catalog.toml`", "The catalog file; a relative path starts at the configuration file.")]),
    (
        "duckdb",
        &[
            ("memory_limit", "DuckDB's, 80%", "Memory of all queries together (`4GB`, `50%`)."),
            ("threads", "one a core", "Threads of all queries together."),
            ("temp_directory", "a new one", "Where DuckDB spills to."),
            ("temp_directory_limit", "DuckDB's, 90% of the disk", "Space it may take there."),
            (
                "extension_directory",
                "found beside the program",
                "Where DuckDB's extensions are: `httpfs` reads an `s3://` lake.",
            ),
        ],
    ),
    (
        "cache",
        &[
            (
                "directory",
                "`thermocline/versions` in the user's cache directory",
                "Where the index of row versions is kept; several servers may share it.",
            ),
            ("limit", "`10GB`", "Space it may take, about 12 to 29 bytes a row in files; `0B`: no index."),
        ],
    ),
    (
        "query",
        &[
            ("consistency", "`strict`", "`eventual`: files alone may answer while PostgreSQL is down."),
            (
                "allow_partial",
                "`false`",
                "Hot rows alone may answer while the lake is down; a corrupt file is left out.",
            ),
            ("prefer_hot", "`false`", "Hot rows alone answer when they fill the LIMIT."),
            ("allow_s3_fallback", "`true`", "With `prefer_hot`: go on into the lake when they don't."),
            ("tiers", "`hot,warm,cold`", "Tiers that answer."),
            ("max_rows", "`none`", "Rows of a result at most; more are cut, and the plan says so."),
            ("max_scan_rows", "`none`", "A query that would read more is refused."),
            ("timeout", "`none`", "Time of a query at most."),
            ("include_deleted", "`false`", "Show tombstones that won."),
            ("hot_scan", "`copy`", "As `postgres.hot_scan`."),
            ("max_concurrent", "`16`", "Queries that run at once."),
            ("max_queued", "`128`", "Queries that wait; more are refused at once."),
            ("idle_timeout", "`5m`", "A query whose client reads nothing for that long is ended."),
            (
                "pushdown",
                "`true`",
                "`false`: DuckDB alone filters, which changes no answer and costs time. For finding faults.",
            ),
            (
                "merge",
                "`auto`",
                "How versions in files become rows: `positions` (waits for the index), `layered` or `window`, as far as it is right. For finding faults.",
            ),
        ],
    ),
    (
        "breaker",
        &[
            ("failures", "`5`", "Failures of a source within `window` that open its breaker."),
            ("window", "`30s`", "See `failures`."),
            ("cooldown", "`10s`", "After this time one query tries the source again."),
        ],
    ),
    (
        "telemetry",
        &[
            (
                "otlp_endpoint",
                "none",
                "Collector of traces, metrics and logs (`http://localhost:4317`); over HTTP `/v1/traces` and so on are appended. OpenTelemetry's variables go before this and the next keys: see operations.",
            ),
            ("otlp_protocol", "`grpc`", "`grpc` or `http/protobuf`."),
            (
                "otlp_headers",
                "none",
                "Secret; `name=value,…` for the collector, values percent-encoded; never printed.",
            ),
            ("otlp_timeout", "`10s`", "For one export."),
            ("service_name", "`thermocline`", "`service.name`; `OTEL_SERVICE_NAME` goes before it."),
            ("log_format", "`text`", "`text` or `json`, on standard error."),
            ("log_level", "`info`", "A level, or directives such as `flight_server=debug,info`; read again on SIGHUP."),
            ("slow_query", "`none`", "Queries that take at least this long are logged with SQL and plan."),
        ],
    ),
    (
        "auth",
        &[
            (
                "anonymous",
                "`true` on a loopback address",
                "Whether everybody is let in. On any other address it must be written.",
            ),
            ("access", "none", "File with users, keys and roles ([Security](security.md)); read again on SIGHUP."),
            (
                "signing_key_file",
                "a key of the process",
                "File with a key of 32 bytes or more a line, the same for all replicas: the first seals tokens and handles, all open.",
            ),
            ("token_ttl", "`12h`", "How long a token is good; clients that can are given a new one at half time."),
            ("session_max", "`7d`", "How long after a login tokens are renewed."),
            (
                "insecure_transport",
                "`false`",
                "Whether logins may come in clear on an address that isn't loopback, as behind a proxy that encrypts.",
            ),
        ],
    ),
    (
        "tls",
        &[
            ("certificate", "none", "PEM file with the chain. All files here are watched, and read again on SIGHUP."),
            ("private_key", "none", "PEM file; one that doesn't fit the certificate leaves the old pair in force."),
            ("client_ca", "none", "PEM file with the authorities of client certificates."),
            (
                "client_certificates",
                "`required` with `client_ca`, else `none`",
                "`none`, `optional` (checked when a client shows one) or `required`.",
            ),
            ("crl", "none", "PEM file with lists of revoked client certificates, one of each authority."),
            ("min_version", "`1.2`", "`1.2` or `1.3`."),
            (
                "max_connection_age",
                "`1h`",
                "Connections are asked to end after this time; calls that run go on. So what was revoked ends.",
            ),
        ],
    ),
];

/// The tables of `docs/configuration.md`.
pub fn markdown() -> String {
    let mut text = String::new();
    for (section, keys) in REFERENCE {
        let bracketed = format!("[{section}]");
        let _infallible = write!(text, "### `{bracketed}`\n\n| key | default | |\n| --- | --- | --- |\n");
        for (key, default, meaning) in keys {
            let _infallible = writeln!(text, "| `{key}` | {default} | {meaning} |");
        }
        text.push('\n');
    }
    text
}

/// The configuration in force as TOML, secrets masked.
pub fn effective(config: &Config) -> String {
    let mut text = String::new();
    let mut section = |name: &str, values: Vec<(&str, Option<String>)>| {
        let _infallible = writeln!(text, "{}[{name}]", if text.is_empty() { "" } else { "\n" });
        for (key, value) in values {
            let _infallible = match value {
                Some(value) => writeln!(text, "{key} = {value}"),
                None => writeln!(text, "# {key} is not set"),
            };
        }
    };
    let quoted = |value: &dyn std::fmt::Display| Some(format!("{:?}", value.to_string()));
    let optional = |value: &Option<String>| value.as_ref().map(|value| format!("{value:?}"));
    let path =
        |value: &Option<std::path::PathBuf>| value.as_ref().map(|path| format!("{:?}", path.display().to_string()));
    let masked = |is_set: bool| is_set.then(|| "\"***\"".to_owned());
    let plain = |value: &dyn std::fmt::Display| Some(value.to_string());
    let table = |name: &super::TableName| match &name.schema {
        Some(schema) => Some(format!("{:?}", format!("{schema}.{}", name.table))),
        None => Some(format!("{:?}", name.table)),
    };
    let Config { server, postgres, hot, lake, catalog, duckdb, cache, query, breaker, telemetry, auth, tls, path: _ } =
        config;
    section(
        "server",
        vec![
            ("listen", quoted(&server.listen)),
            ("admin_listen", quoted(&server.admin_listen)),
            ("drain_limit", quoted(&duration(Some(server.drain_limit)))),
            ("admin_token_file", path(&server.admin_token_file)),
            ("max_connections", plain(&server.max_connections)),
            ("max_connections_per_address", plain(&server.max_connections_per_address)),
            ("handshake_timeout", quoted(&duration(Some(server.handshake_timeout)))),
        ],
    );
    let tables = &postgres.tables;
    section(
        "postgres",
        vec![
            ("url", masked(true)),
            ("hot_scan", quoted(&query.defaults.hot_scan.as_str())),
            ("pool_size", plain(&postgres.pool_size)),
            ("connect_timeout", quoted(&duration(Some(postgres.connect_timeout)))),
            ("statement_timeout", quoted(&duration(postgres.statement_timeout))),
            ("schema_registry", table(&tables.schema_registry)),
            ("entity_main", table(&tables.entity_main)),
            ("eav_data", table(&tables.eav_data)),
            ("change_log", table(&tables.change_log)),
            ("lake_file", table(&tables.lake_file)),
        ],
    );
    section(
        "hot",
        vec![
            ("mirror", quoted(&hot.mirror.as_str())),
            ("memory_limit", quoted(&format!("{}B", hot.memory_limit))),
            ("audit_interval", quoted(&duration(Some(hot.audit_interval)))),
        ],
    );
    let by = match lake.catalog {
        LakeCatalog::Listing => "listing",
        LakeCatalog::Manifest => "manifest",
    };
    section(
        "lake",
        vec![
            ("url", quoted(&lake.url)),
            ("catalog", quoted(&by)),
            ("base", quoted(&lake.base)),
            ("delta", quoted(&lake.delta)),
        ],
    );
    section(
        "lake.s3",
        vec![
            ("endpoint", optional(&lake.s3.endpoint)),
            ("region", optional(&lake.s3.region)),
            ("access_key_id", optional(&lake.s3.access_key_id)),
            ("secret_access_key", masked(lake.s3.secret_access_key.is_some())),
            ("session_token", masked(lake.s3.session_token.is_some())),
            ("allow_http", plain(&lake.s3.allow_http)),
            ("path_style", plain(&lake.s3.path_style)),
        ],
    );
    section("catalog", vec![("path", quoted(&catalog.path.display()))]);
    section(
        "duckdb",
        vec![
            ("memory_limit", optional(&duckdb.memory_limit)),
            ("threads", duckdb.threads.map(|threads| threads.to_string())),
            ("temp_directory", path(&duckdb.temp_directory)),
            ("temp_directory_limit", optional(&duckdb.temp_directory_limit)),
            ("extension_directory", path(&duckdb.extension_directory)),
        ],
    );
    section("cache", vec![("directory", path(&cache.directory)), ("limit", quoted(&format!("{}B", cache.limit)))]);
    let mut options: Vec<(&str, Option<String>)> =
        query.defaults.entries().into_iter().map(|(name, value)| (name, quoted(&value))).collect();
    options.push(("max_concurrent", plain(&query.max_concurrent)));
    options.push(("max_queued", plain(&query.max_queued)));
    options.push(("idle_timeout", quoted(&duration(query.idle_timeout))));
    options.push(("pushdown", plain(&query.pushdown)));
    options.push(("merge", quoted(&query.merge.as_str())));
    section("query", options);
    section(
        "breaker",
        vec![
            ("failures", plain(&breaker.failures)),
            ("window", quoted(&duration(Some(breaker.window)))),
            ("cooldown", quoted(&duration(Some(breaker.cooldown)))),
        ],
    );
    let format = match telemetry.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    section(
        "telemetry",
        vec![
            ("otlp_endpoint", optional(&telemetry.otlp_endpoint)),
            ("otlp_protocol", telemetry.otlp_protocol.and_then(|protocol| quoted(&protocol.as_str()))),
            ("otlp_headers", masked(!telemetry.otlp_headers.is_empty())),
            ("otlp_timeout", telemetry.otlp_timeout.and_then(|limit| quoted(&duration(Some(limit))))),
            ("service_name", quoted(&telemetry.service_name)),
            ("log_format", quoted(&format)),
            ("log_level", quoted(&telemetry.log_level)),
            ("slow_query", quoted(&duration(telemetry.slow_query))),
        ],
    );
    section(
        "auth",
        vec![
            ("anonymous", plain(&auth.anonymous)),
            ("access", path(&auth.access)),
            ("signing_key_file", path(&auth.signing_key_file)),
            ("token_ttl", quoted(&duration(Some(auth.token_ttl)))),
            ("session_max", quoted(&duration(Some(auth.session_max)))),
        ],
    );
    if let Some(tls) = tls {
        section(
            "tls",
            vec![
                ("certificate", quoted(&tls.certificate.display())),
                ("private_key", quoted(&tls.private_key.display())),
                ("client_ca", path(&tls.client_ca)),
                ("client_certificates", quoted(&tls.client_certificates.as_str())),
                ("crl", path(&tls.crl)),
                ("min_version", quoted(&tls.min_version.as_str())),
                ("max_connection_age", quoted(&duration(Some(tls.max_connection_age)))),
            ],
        );
    }
    text
}

fn duration(duration: Option<Duration>) -> String {
    match duration {
        None => "none".to_owned(),
        Some(duration) if duration.subsec_millis() == 0 => format!("{}s", duration.as_secs()),
        Some(duration) => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CONFIG: &str = "[postgres]\nurl = \"postgresql://u:hidden@localhost/app\"\n[lake]\nurl = \"file:///lake\"\n\
        [lake.s3]\naccess_key_id = \"id\"\nsecret_access_key = \"hidden\"\n";

    /// A key that is in neither the reader nor the reference, or in only one of them, is drift.
    #[test]
    fn the_reference_has_the_keys_that_are_read() {
        for (section, keys) in REFERENCE {
            let unknown = format!("[{section}]\nzzzzzzzzzzzzzzzz = 1\n");
            let faults = Config::parse(&unknown, Path::new("x.toml"), []).expect_err("an unknown key").to_string();
            let line = faults.lines().find(|line| line.contains("zzzzzzzzzzzzzzzz")).expect("the key is named");
            let (_, read) = line.split_once("expected ").expect("the keys are named");
            let documented: Vec<&str> = keys.iter().map(|(key, _, _)| *key).collect();
            let mut read: Vec<&str> = read.split(", ").filter(|key| *key != "s3").collect();
            let mut sorted = documented.clone();
            read.sort_unstable();
            sorted.sort_unstable();
            assert_eq!(sorted, read, "section {section}");
        }
    }

    #[test]
    fn the_page_has_the_reference() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let text = std::fs::read_to_string(&page).expect("docs/configuration.md");
        let (start, end) = ("<!-- reference -->\n", "<!-- end of the reference -->");
        let (before, rest) = text.split_once(start).expect("a start mark");
        let (_, after) = rest.split_once(end).expect("an end mark");
        let wanted = format!("{before}{start}{}{end}{after}", markdown());
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&page, &wanted).expect("docs/configuration.md is written");
        } else {
            assert_eq!(text, wanted, "run with UPDATE_EXPECT=1 to write the page anew");
        }
    }

    #[test]
    fn the_configuration_in_force_reads_back_and_shows_no_secret() {
        let config = Config::parse(CONFIG, Path::new("/etc/x.toml"), []).expect("a configuration");
        let text = effective(&config);
        assert!(!text.contains("hidden"), "{text}");
        assert!(text.contains("listen = \"127.0.0.1:32010\"") && text.contains("url = \"***\""), "{text}");
        let again = text.replace("url = \"***\"", "url = \"postgresql://localhost/app\"");
        let again = Config::parse(&again, Path::new("/etc/x.toml"), []).expect("it reads back");
        assert_eq!(effective(&again), text);
    }
}
