//! `compose/` as far as it can be held to the code without a container engine: files parse, what they name is there, and
//! their SQL, configuration and catalog work.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_yaml_ng::Value as Yaml;
use thermocline_tests::client::Client;
use thermocline_tests::lake::Lake;
use thermocline_tests::postgres::TestDatabase;
use thermocline_tests::server::{CommandOutput, ServerConfig, http_get, run_with};

fn compose() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose")
}

fn text(path: &str) -> Result<String> {
    std::fs::read_to_string(compose().join(path)).with_context(|| path.to_owned())
}

/// The documents of a YAML file, with `<<` put in place.
fn yaml(path: &str) -> Result<Vec<Yaml>> {
    serde_yaml_ng::Deserializer::from_str(&text(path)?)
        .map(|document| {
            let mut value: Yaml = serde::Deserialize::deserialize(document)?;
            value.apply_merge()?;
            Ok(value)
        })
        .collect()
}

fn items(value: &Yaml) -> impl Iterator<Item = &Yaml> {
    value.as_sequence().into_iter().flatten()
}

fn texts(value: &Yaml) -> Vec<&str> {
    items(value).filter_map(Yaml::as_str).collect()
}

/// What `check --print-config` says of a configuration, with these variables.
async fn effective(config: &str, catalog: &str, env: &[(String, String)]) -> Result<CommandOutput> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("thermocline.toml");
    std::fs::write(&path, config)?;
    std::fs::write(directory.path().join("catalog.toml"), catalog)?;
    run_with(&["check", "--print-config", "--config", &path.display().to_string()], env).await
}

fn variables(map: &Yaml) -> Vec<(String, String)> {
    let entries = map.as_mapping().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.as_str()?.to_owned(), value.as_str()?.to_owned()))).collect()
}

#[test]
fn every_file_parses() -> Result<()> {
    let mut found = BTreeSet::new();
    let mut folders = vec![compose()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(compose())?.display().to_string();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("yaml" | "yml") => ensure!(!yaml(&relative)?.is_empty(), "{relative}"),
                Some("json") => drop(serde_json::from_str::<serde_json::Value>(&text(&relative)?)?),
                Some("toml") => drop(text(&relative)?.parse::<toml::Table>()?),
                // SQL runs below; the Dockerfile is read there too.
                Some("sql" | "dockerignore") | None => {}
                other => anyhow::bail!("{relative}: nothing here checks {other:?}"),
            }
            found.insert(relative);
        }
    }
    ensure!(found.contains("compose.yaml") && found.contains("kubernetes/thermocline.yaml"), "{found:?}");
    Ok(())
}

#[tokio::test]
async fn compose_names_files_services_and_keys_that_are_there() -> Result<()> {
    let file = yaml("compose.yaml")?.remove(0);
    let services = file["services"].as_mapping().context("services")?;
    let names: BTreeSet<&str> = services.keys().filter_map(Yaml::as_str).collect();
    let volumes: BTreeSet<&str> =
        file["volumes"].as_mapping().context("volumes")?.keys().filter_map(Yaml::as_str).collect();
    let secrets = &file["secrets"];
    for (name, service) in services {
        let name = name.as_str().context("a name")?;
        for secret in texts(&service["secrets"]) {
            let path = secrets[secret]["file"].as_str().with_context(|| format!("{name}: {secret}"))?;
            ensure!(compose().join(path).is_file(), "{secret}: {path}");
        }
        if let Some(image) = service["image"].as_str() {
            let tag = image.rsplit_once(':').map(|(_, tag)| tag);
            ensure!(tag.is_some_and(|tag| tag != "latest"), "{name}: {image} isn't pinned");
        } else {
            let dockerfile = service["build"]["dockerfile"].as_str().context("a Dockerfile")?;
            ensure!(compose().join("..").join(dockerfile).is_file(), "{name}: {dockerfile}");
        }
        // A job that ends, and an image without any program to probe it with.
        let unprobed = ["seed", "collector"].contains(&name);
        ensure!(unprobed || !service["healthcheck"].is_null(), "{name} has no health check");
        for mount in texts(&service["volumes"]) {
            let source = mount.split(':').next().unwrap_or_default();
            let is_there =
                if source.starts_with('.') { compose().join(source).exists() } else { volumes.contains(source) };
            ensure!(is_there, "{name}: {mount}");
        }
        for port in texts(&service["ports"]) {
            ensure!(port.starts_with("127.0.0.1:"), "{name}: {port} is published to other machines");
        }
        for needed in service["depends_on"].as_mapping().into_iter().flatten() {
            ensure!(names.contains(needed.0.as_str().context("a name")?), "{name} needs {:?}", needed.0);
        }
    }
    // Every variable is a key of the configuration, and the whole is sound.
    let (config, catalog) = (text("thermocline/thermocline.toml")?, text("thermocline/catalog.toml")?);
    for name in ["thermocline", "flush", "compact"] {
        let output = effective(&config, &catalog, &variables(&services[name]["environment"])).await?;
        ensure!(output.success, "{name}: {}{}", output.stdout, output.stderr);
        ensure!(output.stdout.contains("endpoint = \"http://s3:9000\""), "{}", output.stdout);
    }
    let ports = ["32010", "32011"];
    for port in ports {
        ensure!(config.contains(&format!("0.0.0.0:{port}")), "{config}");
        ensure!(text("Dockerfile")?.contains(port));
    }
    let scraped = text("prometheus/prometheus.yml")?;
    ensure!(scraped.contains("thermocline:32011") && scraped.contains("/run/secrets/admin"), "{scraped}");
    Ok(())
}

/// The collector takes what the server sends, by either protocol, and each pipeline's parts are defined.
#[test]
fn the_collector_has_a_pipeline_for_each_signal() -> Result<()> {
    let file = yaml("otel/collector.yaml")?.remove(0);
    let endpoint = |protocol: &str| file["receivers"]["otlp"]["protocols"][protocol]["endpoint"].as_str();
    ensure!(endpoint("grpc") == Some("0.0.0.0:4317") && endpoint("http") == Some("0.0.0.0:4318"));
    for signal in ["traces", "metrics", "logs"] {
        let pipeline = &file["service"]["pipelines"][signal];
        for part in ["receivers", "processors", "exporters"] {
            let named = texts(&pipeline[part]);
            ensure!(!named.is_empty(), "{signal}.{part}");
            ensure!(named.iter().all(|name| !file[part][*name].is_null()), "{signal}.{part}: {named:?}");
        }
    }
    Ok(())
}

/// Tables and rows of the set-up are what the server expects, and the rows are there once however often they are put in.
#[tokio::test]
async fn the_seeded_tables_answer_through_the_server() -> Result<()> {
    let database = TestDatabase::create().await?;
    let client = database.connect().await?;
    client.batch_execute("CREATE SCHEMA compose; SET search_path = compose").await?;
    client.batch_execute(&text("postgres/tables.sql")?).await?;
    for _ in 0..2 {
        client.batch_execute(&text("seed/rows.sql")?).await?;
    }
    let lake = Lake::local()?;
    let mut config = ServerConfig::new(&database, &lake, &[]);
    config.catalog = text("thermocline/catalog.toml")?;
    for table in ["schema_registry", "entity_main", "eav_data", "change_log"] {
        config.set("postgres", table, format!("compose.{table}"));
    }
    let server = config.start().await?;
    let client = Client::connect(server.endpoint()).await?;
    let sql = "SELECT name, CAST(since AS VARCHAR) AS since, CAST(credit_limit AS VARCHAR) AS credit, len(tags) AS tags \
               FROM customers WHERE name = 'Ada'";
    let answer = client.query(sql).await?;
    assert_eq!(answer.row_count(), 1);
    for part in ["Ada", "2024-01-01", "1000.00", "2"] {
        assert!(answer.text().contains(part), "no {part} in {}", answer.text());
    }
    assert_eq!(client.query("SELECT * FROM customers").await?.row_count(), 3);
    let output = run_with(&["check", "--config", &server.config_path().display().to_string()], &[]).await?;
    assert!(output.stdout.contains("0 wrong, 0 to improve"), "{}", output.stdout);
    Ok(())
}

#[tokio::test]
async fn the_kubernetes_manifest_fits_the_server() -> Result<()> {
    let documents = yaml("kubernetes/thermocline.yaml")?;
    // The first of a kind: the Secret with variables comes before the one with files.
    let by_kind: BTreeMap<&str, &Yaml> =
        documents.iter().rev().filter_map(|document| Some((document["kind"].as_str()?, document))).collect();
    let files = documents.iter().find(|document| document["metadata"]["name"].as_str() == Some("thermocline-files"));
    let files = files.context("no Secret with files")?;
    let kinds: Vec<&str> = by_kind.keys().copied().collect();
    let wanted = ["ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Secret", "Service"];
    assert_eq!(kinds, wanted);
    let deployment = &by_kind["Deployment"]["spec"];
    let pod = &deployment["template"]["spec"];
    let container = &pod["containers"][0];

    // Selectors find the pods.
    let labels = deployment["template"]["metadata"]["labels"].as_mapping().context("labels")?;
    for selector in [
        &deployment["selector"]["matchLabels"],
        &by_kind["Service"]["spec"]["selector"],
        &by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        &by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ] {
        assert_eq!(selector.as_mapping().context("a selector")?, labels);
    }

    // The configuration is sound with the Secret's variables, and listens where the ports say.
    let data = &by_kind["ConfigMap"]["data"];
    let (config, catalog) =
        (data["thermocline.toml"].as_str().context("a file")?, data["catalog.toml"].as_str().context("a file")?);
    let secret = variables(&by_kind["Secret"]["stringData"]);
    assert!(secret.iter().all(|(name, _)| name.starts_with("THERMOCLINE__")), "{secret:?}");
    let output = effective(config, catalog, &secret).await?;
    assert!(output.success && !output.stdout.contains("change-me"), "{}{}", output.stdout, output.stderr);
    let settings: toml::Table = output.stdout.parse()?;
    // Files that the configuration names are in the Secret that is mounted there.
    let file = settings["server"]["admin_token_file"].as_str().context("a file")?;
    let name = file.strip_prefix("/run/secrets/thermocline/").context("a secret")?;
    assert!(files["stringData"][name].is_string(), "{file}");
    let mounts: Vec<&str> = items(&container["volumeMounts"]).filter_map(|mount| mount["mountPath"].as_str()).collect();
    assert!(mounts.contains(&"/run/secrets/thermocline"), "{mounts:?}");
    let port_of = |key: &str| -> Result<i64> {
        let address = settings["server"][key].as_str().context("an address")?;
        Ok(address.rsplit_once(':').context("a port")?.1.parse()?)
    };
    let ports: BTreeMap<&str, i64> = items(&container["ports"])
        .filter_map(|port| Some((port["name"].as_str()?, port["containerPort"].as_i64()?)))
        .collect();
    assert_eq!(ports, BTreeMap::from([("admin", port_of("admin_listen")?), ("grpc", port_of("listen")?)]));
    let served = &by_kind["Service"]["spec"]["ports"][0];
    assert_eq!(ports.get(served["targetPort"].as_str().context("a port")?), Some(&port_of("listen")?));
    let scraped = deployment["template"]["metadata"]["annotations"]["prometheus.io/port"].as_str();
    assert_eq!(scraped, Some(port_of("admin_listen")?.to_string().as_str()));

    // What is mounted is defined, and the arguments name it.
    let volumes: BTreeSet<&str> = items(&pod["volumes"]).filter_map(|volume| volume["name"].as_str()).collect();
    for mount in items(&container["volumeMounts"]) {
        assert!(volumes.contains(mount["name"].as_str().context("a name")?), "{mount:?}");
    }
    assert_eq!(texts(&container["args"]), ["serve", "--config", "/etc/thermocline/thermocline.toml"]);
    let spill = settings["duckdb"]["temp_directory"].as_str();
    assert!(items(&container["volumeMounts"]).any(|mount| mount["mountPath"].as_str() == spill), "{spill:?}");

    // Nothing runs as root, and updates and evictions leave a server.
    assert_eq!(pod["securityContext"]["runAsNonRoot"], Yaml::from(true));
    let user = pod["securityContext"]["runAsUser"].as_i64().context("a user")?;
    assert!(text("Dockerfile")?.contains(&format!("USER {user}")));
    let security = &container["securityContext"];
    assert_eq!(security["allowPrivilegeEscalation"], Yaml::from(false));
    assert_eq!(security["readOnlyRootFilesystem"], Yaml::from(true));
    assert_eq!(texts(&security["capabilities"]["drop"]), ["ALL"]);
    assert_eq!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"], Yaml::from(0));
    assert!(deployment["replicas"].as_i64() > by_kind["PodDisruptionBudget"]["spec"]["minAvailable"].as_i64());
    for side in ["requests", "limits"] {
        for resource in ["cpu", "memory", "ephemeral-storage"] {
            assert!(!container["resources"][side][resource].is_null(), "{side}.{resource}");
        }
    }
    let drain: u64 = settings["server"]["drain_limit"].as_str().context("a limit")?.trim_end_matches('s').parse()?;
    let grace = pod["terminationGracePeriodSeconds"].as_u64().context("a time")?;
    assert!(grace >= drain + 5 + 9, "preStop, drain and the last telemetry take longer than {grace} s");

    // The probes ask for paths that a server has.
    let database = TestDatabase::create().await?;
    let server = ServerConfig::new(&database, &Lake::local()?, &[]).start().await?;
    let admin = server.admin_address()?;
    let mut paths: BTreeSet<&str> = BTreeSet::new();
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"].as_str(), Some("admin"));
        paths.insert(container[probe]["httpGet"]["path"].as_str().context("a path")?);
    }
    paths.extend(deployment["template"]["metadata"]["annotations"]["prometheus.io/path"].as_str());
    assert_eq!(paths, BTreeSet::from(["/livez", "/metrics", "/readyz"]));
    for path in paths {
        assert_ne!(http_get(&admin, path).await?.0, 404, "{path}");
    }
    Ok(())
}
