//! Logins, and what a caller sees: credentials of every kind, who is refused, whose handles are whose.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionCancelQueryRequest, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTables,
    CommandPreparedStatementQuery, ProstMessageExt,
};
use arrow_flight::{
    Action, BasicAuth, Criteria, Empty, FlightData, FlightDescriptor, HandshakeRequest, SchemaResult, Ticket,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use futures::TryStreamExt;
use prost::Message;
use tempfile::TempDir;
use thermocline_tests::client::{Client, adbc_connect, adbc_query};
use thermocline_tests::lake::LakeFile;
use thermocline_tests::model::{Entity, Kind, Value};
use thermocline_tests::oracle::{HotVersion, Stored};
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::binary;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use thermocline_tests::until;

use crate::{thing, things};

/// A server with users, and the file that they are in.
struct Guarded {
    scenario: Scenario,
    access: PathBuf,
    _dir: TempDir,
}

/// Runs `thermocline auth …` with this standard input.
fn auth(args: &[&str], input: &str) -> Result<(String, String)> {
    use std::io::Write;
    let mut program = std::process::Command::new(binary()?);
    program.arg("auth").args(args).stdin(std::process::Stdio::piped());
    let mut program = program.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn()?;
    program.stdin.take().context("standard input")?.write_all(input.as_bytes())?;
    let output = program.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok((String::from_utf8(output.stdout)?.trim().to_owned(), String::from_utf8(output.stderr)?))
}

fn user(name: &str, password: &str, roles: &str) -> Result<String> {
    let (hash, _) = auth(&["hash"], &format!("{password}\n"))?;
    Ok(format!("[[user]]\nname = \"{name}\"\npassword_hash = \"{hash}\"\nroles = [{roles}]\n"))
}

const ROLES: &str = "[[role]]\nname = \"analyst\"\n[[role.table]]\nname = \"things\"\nexcept = [\"n\"]\n\
    [[role]]\nname = \"owner\"\nplan = \"full\"\nadmin = true\nsystem = [\"files\", \"tiers\", \"health\", \"moments\"]\n\
    [[role.table]]\nname = \"*\"\nexcept = []\n";

fn secrets() -> Entity {
    Entity::new("secrets", 200).main("word", Kind::Text, "text_01")
}

async fn start(access: &str, settings: &[(&str, &str, toml::Value)]) -> Result<Guarded> {
    let (entity, secrets) = (things(), secrets());
    let mut stored = Stored::new(&entity);
    stored.files =
        vec![LakeFile::base(&entity, "a.parquet", (0..20).map(|n| live(n, 10, thing("base", n as i32))).collect())];
    stored.hot = (15..25)
        .map(|n| HotVersion { version: live(n, 20, thing("hot", n as i32)), dirty: true, has_main: true })
        .collect();
    let mut hidden = Stored::new(&secrets);
    hidden.hot = vec![HotVersion { version: live(1, 10, vec![Value::text("xyzzy")]), dirty: true, has_main: true }];
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("access.toml");
    std::fs::write(&path, access)?;
    let scenario = Scenario::start_with(vec![stored, hidden], LakeKind::Local, |mut config| {
        config.set("auth", "access", path.display().to_string());
        for (section, key, value) in settings {
            config.set(section, key, value.clone());
        }
        config
    })
    .await?;
    Ok(Guarded { scenario, access: path, _dir: dir })
}

/// Ann is an analyst, bob owns everything.
async fn start_usual() -> Result<Guarded> {
    let access = user("ann", "ann: über", "\"analyst\"")? + &user("bob", "bob's", "\"owner\"")? + ROLES;
    start(&access, &[]).await
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

impl Guarded {
    fn with(&self, authorization: &str) -> Client {
        self.scenario.client.with_header("authorization", authorization)
    }

    fn ann(&self) -> Client {
        self.with(&basic("ann", "ann: über"))
    }

    fn bob(&self) -> Client {
        self.with(&basic("bob", "bob's"))
    }

    fn channel(&self) -> FlightServiceClient<Channel> {
        self.scenario.client.flight()
    }

    /// Replaces the access file, and waits until it is in force or refused.
    async fn reload(&self, access: &str) -> Result<()> {
        let said = || Ok::<_, anyhow::Error>(self.scenario.server.log()?.matches("reloaded").count());
        let before = said()?;
        std::fs::write(&self.access, access)?;
        self.scenario.server.signal("HUP")?;
        until("the access file is read", async || Ok(said()? > before)).await
    }
}

/// The token that a handshake gives, in its headers, and what it says then.
async fn handshake(
    client: &mut FlightServiceClient<Channel>,
    authorization: Option<&str>,
    messages: Vec<HandshakeRequest>,
) -> Result<(String, String), Status> {
    let mut request = Request::new(futures::stream::iter(messages));
    if let Some(authorization) = authorization {
        request.metadata_mut().insert("authorization", authorization.parse().expect("a header"));
    }
    let response = client.handshake(request).await?;
    let header =
        response.metadata().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut stream = response.into_inner();
    let mut payload = String::new();
    while let Some(message) = stream.message().await? {
        payload = String::from_utf8_lossy(&message.payload).into_owned();
    }
    let trailers = stream.trailers().await?;
    assert!(trailers.is_none_or(|trailers| !trailers.contains_key("authorization")), "a token in the trailers");
    Ok((header, payload))
}

/// How a query ends.
async fn outcome(client: Client, ticket: Ticket) -> Code {
    match client.do_get(ticket).await {
        Ok(stream) => stream.try_collect::<Vec<_>>().await.map_or_else(|status| status.code(), |_| Code::Ok),
        Err(failure) => failure.code,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_asks_who_calls_before_it_looks_at_anything() -> Result<()> {
    let guarded = start_usual().await?;
    for client in [
        guarded.scenario.client.clone(),
        guarded.with("Bearer tct_x"),
        guarded.with("Bearer anonymous"),
        guarded.with("Digest ann"),
    ] {
        let mut flight = client.flight();
        let garbage = || b"garbage".to_vec();
        let mut codes = Vec::new();
        codes.push(flight.list_flights(client.request(Criteria::default())).await.err());
        codes.push(flight.get_flight_info(client.request(FlightDescriptor::new_cmd(garbage()))).await.err());
        codes.push(flight.poll_flight_info(client.request(FlightDescriptor::new_cmd(garbage()))).await.err());
        codes.push(flight.get_schema(client.request(FlightDescriptor::new_cmd(garbage()))).await.err());
        codes.push(flight.do_get(client.request(Ticket::new(garbage()))).await.err());
        codes.push(flight.do_put(client.request(futures::stream::iter([FlightData::default()]))).await.err());
        codes.push(flight.do_exchange(client.request(futures::stream::iter([FlightData::default()]))).await.err());
        codes.push(flight.list_actions(client.request(Empty {})).await.err());
        for action in ["CreatePreparedStatement", "CancelQuery", "SetSessionOptions", "CloseSession", "nonsense"] {
            codes.push(flight.do_action(client.request(Action::new(action, garbage()))).await.err());
        }
        let mut texts = std::collections::BTreeSet::new();
        for (call, status) in codes.into_iter().enumerate() {
            let status = status.with_context(|| format!("call {call} was let in"))?;
            assert_eq!(status.code(), Code::Unauthenticated, "call {call}: {status}");
            assert!(!status.metadata().contains_key("authorization"));
            texts.insert(status.message().to_owned());
        }
        // Each wrong password is answered later than the one before: few are tried.
        for wrong in [basic("ann", "wrong"), basic("nobody", "ann: über")] {
            let refused = guarded.with(&wrong).refusal("SELECT name FROM things").await;
            assert_eq!(refused.code, Code::Unauthenticated);
            texts.insert(refused.message);
        }
        assert_eq!(texts.len(), 1, "{texts:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_gives_a_token_to_every_kind_of_client() -> Result<()> {
    let guarded = start_usual().await?;
    let mut client = guarded.channel();
    let sql = "SELECT count(*) AS n FROM things";
    let padded = basic("ann", "ann: über");
    let unpadded = format!("basic  {}", STANDARD_NO_PAD.encode("ann:ann: über"));
    let payload = BasicAuth { username: "ann".to_owned(), password: "ann: über".to_owned() }.encode_to_vec();
    let message = HandshakeRequest { protocol_version: 1, payload: payload.into() };
    for (authorization, messages) in
        [(Some(padded.as_str()), vec![]), (Some(&unpadded), vec![HandshakeRequest::default()]), (None, vec![message])]
    {
        let (header, payload) = handshake(&mut client, authorization, messages).await?;
        let token = header.strip_prefix("Bearer ").context("a bearer in the headers")?;
        ensure!(token.starts_with("tct_") && payload == token, "{header} and {payload}");
        assert_eq!(guarded.with(&header).query(sql).await?.text(), "25");
        // JDBC shows a token it has to a handshake; tools without a field for it put it in the password's place.
        handshake(&mut client, Some(&header), vec![]).await?;
        assert_eq!(guarded.with(&basic("token", token)).query(sql).await?.text(), "25");
        // Old clients of Flight go on with binary metadata.
        let mut request = Request::new(Criteria::default());
        request
            .metadata_mut()
            .insert_bin("auth-token-bin", tonic::metadata::MetadataValue::from_bytes(token.as_bytes()));
        let flights: Vec<_> = client.list_flights(request).await?.into_inner().try_collect().await?;
        assert_eq!(flights.len(), 1);
    }
    let wrong = BasicAuth { username: "ann".to_owned(), password: "x".repeat(5000) }.encode_to_vec();
    let garbage = HandshakeRequest { protocol_version: 1, payload: vec![0xff; 10].into() };
    for (authorization, messages) in [
        (Some(basic("ann", "wrong")), vec![]),
        (Some("Bearer ".to_owned()), vec![]),
        (None, vec![HandshakeRequest { protocol_version: 1, payload: wrong.into() }]),
        (None, vec![garbage]),
        (None, vec![]),
    ] {
        let refused = handshake(&mut client, authorization.as_deref(), messages).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{authorization:?}: {refused}");
    }
    let mut two = Request::new(Criteria::default());
    two.metadata_mut().append("authorization", padded.parse()?);
    two.metadata_mut().append("authorization", basic("bob", "bob's").parse()?);
    assert_eq!(client.list_flights(two).await.unwrap_err().code(), Code::Unauthenticated);
    // The driver of ADBC, which is Go's: a login of its own, and a token in a header.
    let endpoint = guarded.scenario.server.endpoint().to_owned();
    let (header, _) = handshake(&mut client, Some(&padded), vec![]).await?;
    let adbc = tokio::task::spawn_blocking(move || -> Result<()> {
        for options in [
            vec![("username", "ann"), ("password", "ann: über")],
            vec![("adbc.flight.sql.authorization_header", header.as_str())],
        ] {
            let (_, batches) = adbc_query(&mut adbc_connect(&endpoint, &options)?, "SELECT count(*) AS n FROM things")?;
            assert_eq!(batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 1, "{options:?}");
        }
        ensure!(adbc_connect(&endpoint, &[("username", "ann"), ("password", "wrong")]).is_err());
        Ok(())
    });
    adbc.await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_granted_is_not_there() -> Result<()> {
    let guarded = start_usual().await?;
    let (ann, bob) = (guarded.ann(), guarded.bob());
    assert_eq!(bob.query("SELECT word FROM secrets").await?.text(), "xyzzy");
    assert_eq!(bob.query("SELECT sum(n) AS s FROM things").await?.text(), "300");
    // A table that is hidden, and one that never was: the same words.
    let words = |failure: thermocline_tests::client::Failure, name: &str| {
        let message = failure.message.replace(name, "NAME");
        let message = message.split("(query id").next().unwrap_or_default().to_owned();
        (failure.code, message)
    };
    for form in [
        "SELECT * FROM NAME",
        "SELECT word FROM NAME",
        "DESCRIBE NAME",
        "SUMMARIZE NAME",
        "SELECT 1 FROM things, NAME",
        "WITH x AS (SELECT * FROM NAME) SELECT 1 FROM x",
        "SELECT (SELECT count(*) FROM NAME)",
        "SELECT 1 FROM things WHERE EXISTS (FROM NAME)",
    ] {
        let hidden = words(ann.refusal(&form.replace("NAME", "secrets")).await, "secrets");
        let absent = words(ann.refusal(&form.replace("NAME", "sacrets")).await, "sacrets");
        assert_eq!(hidden, absent, "{form}");
    }
    for sql in ["SELECT n FROM things", "SELECT name FROM things WHERE n > 1", "SELECT t.n FROM things t ORDER BY n"] {
        let hidden = ann.refusal(sql).await;
        assert_eq!(hidden.code, Code::InvalidArgument, "{hidden}");
        let candidates = hidden.message.split("Candidate bindings").nth(1).unwrap_or_default();
        ensure!(!candidates.contains("\"n\""), "{hidden}");
    }
    // Whole rows are the columns that are seen.
    for sql in [
        "SELECT * FROM things LIMIT 1",
        "SELECT t.* FROM things t LIMIT 1",
        "SELECT COLUMNS(*) FROM things LIMIT 1",
        "SELECT unnest(t) FROM things t LIMIT 1",
        "SELECT * FROM (SELECT * FROM things UNION ALL SELECT * FROM things) LIMIT 1",
    ] {
        let answer = ann.query(sql).await?;
        let names: Vec<String> = answer.schema.fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["row_id", "name", "note", "size_cm", "created_at", "updated_at"], "{sql}");
    }
    ensure!(!ann.query("SELECT to_json(t)::VARCHAR FROM things t").await?.text().contains("\"n\""));
    assert_eq!(
        ann.query("SELECT column_name FROM (DESCRIBE things)").await?.text(),
        "row_id\nname\nnote\nsize_cm\ncreated_at\nupdated_at"
    );
    assert_eq!(ann.query("SHOW TABLES").await?.text(), "things");
    assert_eq!(ann.query("SELECT table_name FROM information_schema.tables").await?.text(), "things");
    assert_eq!(
        ann.query("SELECT count(*) AS c FROM information_schema.columns WHERE column_name IN ('n', 'word')")
            .await?
            .text(),
        "0"
    );
    for pattern in [None, Some("%"), Some("secrets"), Some("s_crets")] {
        let tables = CommandGetTables {
            include_schema: true,
            table_name_filter_pattern: pattern.map(str::to_owned),
            ..CommandGetTables::default()
        };
        let found = ann.command(&tables).await?.text();
        ensure!(!found.contains("secrets"), "{pattern:?}: {found}");
    }
    let keys = CommandGetPrimaryKeys { table: "secrets".to_owned(), ..CommandGetPrimaryKeys::default() };
    assert_eq!(ann.command(&keys).await?.row_count(), 0);
    assert_eq!(bob.command(&keys).await?.row_count(), 1);
    ann.command(&CommandGetDbSchemas::default()).await?;
    let path = FlightDescriptor::new_path(vec!["secrets".to_owned()]);
    let schema: Result<tonic::Response<SchemaResult>, Status> = ann.flight().get_schema(ann.request(path)).await;
    assert_eq!(schema.unwrap_err().code(), Code::NotFound);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_asked_for_and_plans_are_cut() -> Result<()> {
    let guarded = start_usual().await?;
    let (ann, bob) = (guarded.ann(), guarded.bob());
    for table in ["files", "tiers", "health", "moments"] {
        let refused = ann.refusal(&format!("SELECT * FROM system.{table}")).await;
        assert_eq!(refused.code, Code::PermissionDenied, "{refused}");
        ensure!(refused.message.contains(&format!("system.{table} isn't granted")), "{refused}");
        bob.query(&format!("SELECT * FROM system.{table}")).await?;
    }
    let refused = ann.refusal("EXPLAIN SELECT name FROM things").await;
    ensure!(refused.code == Code::PermissionDenied && refused.message.contains("plan = \"full\""), "{refused}");
    bob.query("EXPLAIN SELECT name FROM things").await?;
    ann.query("SELECT * FROM system.options").await?;
    let (seen, whole) = (ann.query("SELECT name FROM things").await?, bob.query("SELECT name FROM things").await?);
    for plan in [&seen.final_plan, &seen.plan] {
        ensure!(plan["route"].is_string() && plan["warnings"].is_array(), "{plan:#}");
        for hidden in ["statement", "references", "sql", "moment"] {
            ensure!(plan.get(hidden).is_none(), "{hidden}: {plan:#}");
        }
    }
    assert_eq!(seen.final_plan["execution"]["rows"], 25);
    ensure!(whole.final_plan["statement"].is_string() && whole.final_plan["references"].is_array());
    // One's own queries, and for who may see them those of all.
    bob.query("SELECT 'of bob' FROM secrets").await?;
    let of_ann = ann.query("SELECT DISTINCT principal FROM system.queries").await?.text();
    assert_eq!(of_ann, "ann");
    ensure!(!ann.query("SELECT sql FROM system.queries").await?.text().contains("of bob"));
    assert_eq!(bob.query("SELECT DISTINCT principal FROM system.queries ORDER BY 1").await?.text(), "ann\nbob");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_sessions_and_queries_are_their_callers_alone() -> Result<()> {
    let guarded = start_usual().await?;
    let (ann, bob) = (guarded.ann(), guarded.bob());
    let info = ann.info("SELECT name FROM things").await?;
    let ticket = info.endpoint[0].ticket.clone().context("a ticket")?;
    let foreign = bob.do_get(ticket.clone()).await.unwrap_err();
    let garbage = {
        let mut bytes = ticket.ticket.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        bob.do_get(Ticket::new(bytes)).await.unwrap_err()
    };
    assert_eq!((foreign.code, &foreign.message), (Code::NotFound, &garbage.message));
    ann.do_get(ticket).await?;
    let prepared = ann.prepare("SELECT name FROM things").await?;
    let command = CommandPreparedStatementQuery { prepared_statement_handle: prepared.handle.clone() };
    assert_eq!(bob.info_of(&command).await.unwrap_err().code, Code::NotFound);
    ann.info_of(&command).await?;
    // A handle of a server without logins is none here.
    let anonymous = Scenario::start(vec![Stored::new(&things())], LakeKind::Local).await?;
    let other =
        anonymous.client.info("SELECT name FROM things").await?.endpoint[0].ticket.clone().context("a ticket")?;
    assert_eq!(ann.do_get(other).await.unwrap_err().code, Code::NotFound);
    // Queries are cancelled by who runs them, and by who may.
    let long = "SELECT count(*) FROM range(100000000000) r(i) WHERE hash(i) = 1";
    let info = ann.info(long).await?;
    let ticket = info.endpoint[0].ticket.clone().context("a ticket")?;
    let running = tokio::spawn(outcome(ann.clone(), ticket));
    let state = "SELECT count(*) AS n FROM system.queries WHERE state = 'running' AND sql LIKE '%100000000000%' AND sql NOT LIKE '%LIKE%'";
    until("the query runs", async || Ok(bob.query(state).await?.text() == "1")).await?;
    let cancel = || ActionCancelQueryRequest { info: info.encode_to_vec().into() }.as_any().encode_to_vec();
    let carol = user("carol", "c", "\"analyst\"")?;
    let access = std::fs::read_to_string(&guarded.access)?;
    guarded.reload(&(carol + &access)).await?;
    let carol = guarded.with(&basic("carol", "c"));
    assert_eq!(carol.action("CancelQuery", cancel().into()).await.unwrap_err().code, Code::NotFound);
    ann.action("CancelQuery", cancel().into()).await?;
    assert_eq!(running.await?, Code::Cancelled);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_holds_at_once() -> Result<()> {
    let guarded = start_usual().await?;
    let mut client = guarded.channel();
    let (header, _) = handshake(&mut client, Some(&basic("ann", "ann: über")), vec![]).await?;
    let (ann, access) = (guarded.with(&header), std::fs::read_to_string(&guarded.access)?);
    ann.query("SELECT name FROM things").await?;
    let ticket = ann.info("SELECT name FROM things").await?.endpoint[0].ticket.clone().context("a ticket")?;
    // A file that is wrong changes nothing.
    std::fs::write(&guarded.access, access.replace("\"analyst\"]", "\"analist\"]"))?;
    guarded.scenario.server.signal("HUP")?;
    until("the fault is told", async || Ok(guarded.scenario.server.log()?.contains("there is no role `analist`")))
        .await?;
    ann.query("SELECT name FROM things").await?;
    let config = guarded.scenario.server.config_path().display().to_string();
    let checked = thermocline_tests::server::run(&["check", "--config", &config]).await?;
    ensure!(!checked.success && checked.stdout.contains("there is no role `analist`"), "{}", checked.stdout);
    // A grant that is taken away ends what runs, and what was planned before.
    let info = ann.info("SELECT max(hash(a.name || i)) FROM things a, range(100000000000) r(i)").await?;
    let long = info.endpoint[0].ticket.clone().context("a ticket")?;
    let running = tokio::spawn(outcome(ann.clone(), long));
    let state = "SELECT count(*) AS n FROM system.queries WHERE state = 'running' AND principal = 'ann'";
    until("the query runs", async || Ok(guarded.bob().query(state).await?.text() == "1")).await?;
    guarded.reload(&access.replace("name = \"things\"\nexcept = [\"n\"]", "name = \"secrets\"\nexcept = []")).await?;
    assert_eq!(running.await?, Code::Cancelled);
    assert_eq!(ann.do_get(ticket).await.unwrap_err().code, Code::NotFound);
    assert_eq!(ann.query("SELECT word FROM secrets").await?.text(), "xyzzy");
    // Another password ends the tokens of the old one.
    let changed = user("ann", "other", "\"analyst\"")? + &user("bob", "bob's", "\"owner\"")? + ROLES;
    guarded.reload(&changed).await?;
    assert_eq!(ann.refusal("SELECT name FROM things").await.code, Code::Unauthenticated);
    guarded.with(&basic("ann", "other")).query("SELECT name FROM things").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_tokens_and_nobody() -> Result<()> {
    let (key, lines) = auth(&["new-key", "cron1", "--user", "etl"], "")?;
    let lines = &lines[lines.find("[[key]]").context("the lines of the key")?..];
    let users = "[[user]]\nname = \"etl\"\nroles = [\"owner\"]\n".to_owned() + lines + ROLES;
    let access = users + "[[role]]\nname = \"anonymous\"\n[[role.table]]\nname = \"things\"\ncolumns = [\"name\"]\n";
    let signing = tempfile::NamedTempFile::new()?;
    std::fs::write(signing.path(), auth(&["new-signing-key"], "")?.0)?;
    let settings =
        [("auth", "anonymous", true.into()), ("auth", "signing_key_file", signing.path().display().to_string().into())];
    let guarded = start(&access, &settings).await?;
    let nobody = &guarded.scenario.client;
    assert_eq!(nobody.query("SELECT count(*) AS n, min(name) AS m FROM things").await?.text(), "25|base");
    assert_eq!(nobody.query("SELECT count(*) AS n FROM things").await?.text(), "25");
    assert_eq!(nobody.query("SELECT * FROM things LIMIT 1").await?.schema.fields().len(), 1);
    assert_eq!(nobody.refusal("SELECT word FROM secrets").await.code, Code::NotFound);
    let bearer = format!("Bearer {key}");
    assert_eq!(guarded.with(&bearer).query("SELECT word FROM secrets").await?.text(), "xyzzy");
    assert_eq!(guarded.with(&format!("{bearer}x")).refusal("SELECT 1 FROM things").await.code, Code::Unauthenticated);
    // Another replica with the same keys takes the token.
    let (header, _) = handshake(&mut guarded.channel(), Some(&bearer), vec![]).await?;
    let replica = start(&access, &settings).await?;
    assert_eq!(replica.with(&header).query("SELECT word FROM secrets").await?.text(), "xyzzy");
    // The command line logs in by what isn't on it.
    let env = [("THERMOCLINE_TOKEN".to_owned(), key.clone())];
    let server = guarded.scenario.server.grpc_uri();
    let answer =
        thermocline_tests::server::run_with(&["query", "--server", &server, "SELECT word FROM secrets"], &env).await?;
    ensure!(answer.success && answer.stdout.contains("xyzzy"), "{}{}", answer.stdout, answer.stderr);
    // Nothing that logs in is in the log.
    let log = guarded.scenario.server.log()?;
    ensure!(!log.contains(&key) && !log.contains("tct_"), "{log}");
    Ok(())
}
