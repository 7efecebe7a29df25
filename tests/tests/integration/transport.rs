//! Connections before any call: TLS, client certificates, rotation, silent peers, limits, and the admin port's token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use thermocline_tests::client::Client;
use thermocline_tests::lake::Lake;
use thermocline_tests::pki::{ClientCertificate, Pair, Pki, self_signed};
use thermocline_tests::postgres::TestDatabase;
use thermocline_tests::server::{Server, ServerConfig, http_get_with, run};
use thermocline_tests::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server without data, which `SELECT 1` needs none of.
async fn server(configure: impl FnOnce(ServerConfig) -> ServerConfig) -> Result<(TestDatabase, Server)> {
    let database = TestDatabase::create().await?;
    let server = configure(ServerConfig::new(&database, &Lake::local()?, &[])).start().await?;
    Ok((database, server))
}

fn with_tls(config: ServerConfig, pki: &Pki) -> ServerConfig {
    let file = |name: &str| pki.path(name).display().to_string();
    config.with("tls", "certificate", file("server.pem")).with("tls", "private_key", file("server.key"))
}

async fn asks(client: Result<Client>) -> Result<()> {
    ensure!(client?.query("SELECT 1 AS one").await?.row_count() == 1);
    Ok(())
}

/// A connection as rustls makes it, without gRPC.
async fn handshake(
    server: &Server,
    pki: &Pki,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<Vec<u8>> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pki.authority_pem().as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.endpoint().trim_start_matches("https://")).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect("localhost".try_into()?, stream).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let mut first = [0; 9];
    stream.read_exact(&mut first).await?;
    ensure!(first[3] == 4, "the first frame isn't SETTINGS but {}", first[3]);
    let certificates = stream.get_ref().1.peer_certificates().context("no certificate")?;
    Ok(certificates[0].to_vec())
}

#[tokio::test]
async fn tls_is_spoken_and_nothing_else() -> Result<()> {
    let pki = Pki::new()?;
    pki.write_server()?;
    let (_database, server) = server(|config| with_tls(config, &pki).with("tls", "min_version", "1.3")).await?;
    asks(Client::connect_tls(server.endpoint(), pki.client_tls(None)).await).await?;
    asks(Client::connect_tls(&server.endpoint().replace("127.0.0.1", "localhost"), pki.client_tls(None)).await).await?;
    // Without ALPN too.
    handshake(&server, &pki, &[&rustls::version::TLS13]).await?;

    let plain = server.endpoint().replace("https://", "http://");
    let refused = asks(Client::connect(&plain).await).await;
    ensure!(refused.is_err(), "plain text was answered");
    let stranger = Pki::new()?;
    ensure!(asks(Client::connect_tls(server.endpoint(), stranger.client_tls(None)).await).await.is_err());
    ensure!(handshake(&server, &pki, &[&rustls::version::TLS12]).await.is_err(), "TLS 1.2 was spoken");

    let ca = pki.path("ca.pem").display().to_string();
    let output = server.run_query(&["--tls-ca", &ca, "SELECT 41 + 1 AS answer"]).await?;
    ensure!(output.success && output.stdout.contains("42"), "{}{}", output.stdout, output.stderr);
    let output = server.run_query(&["SELECT 1"]).await?;
    ensure!(!output.success, "an unknown authority was believed");
    Ok(())
}

/// Plain HTTP/1 and TLS at a plain port end the connection and nothing else.
#[tokio::test]
async fn a_plain_port_speaks_http2_alone() -> Result<()> {
    let (_database, server) = server(|config| config).await?;
    let address = server.endpoint().trim_start_matches("http://");
    for said in
        ["GET / HTTP/1.1\r\nhost: x\r\n\r\n", "\x16\x03\x01\x02\0\x01\0\x01\u{7f}\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
    {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(said.as_bytes()).await?;
        let mut answer = Vec::new();
        // Bytes that nobody read make the end a reset.
        let _reset = stream.read_to_end(&mut answer).await;
        ensure!(answer.is_empty(), "{said:?} got {answer:?}");
    }
    asks(Client::connect(server.endpoint()).await).await
}

#[tokio::test]
async fn client_certificates_are_believed_as_configured() -> Result<()> {
    let pki = Pki::new()?;
    pki.write_server()?;
    pki.write_revoked(&[66])?;
    let client = |change: fn(&mut ClientCertificate<'_>)| {
        let mut certificate = ClientCertificate::of("alice");
        change(&mut certificate);
        pki.client(&certificate)
    };
    let valid = client(|_| ())?;
    let cases: [(&str, Option<Pair>, bool); 6] = [
        ("valid", Some(valid.clone()), true),
        ("expired", Some(client(|certificate| certificate.is_expired = true)?), false),
        ("a server's", Some(client(|certificate| certificate.is_servers = true)?), false),
        ("revoked", Some(client(|certificate| certificate.serial = 66)?), false),
        ("of another authority", Some(Pki::new()?.client(&ClientCertificate::of("alice"))?), false),
        ("self-signed", Some(self_signed(&ClientCertificate::of("alice"))?), false),
    ];
    for (mode, without) in [("required", false), ("optional", true)] {
        let (_database, server) = server(|config| {
            with_tls(config, &pki)
                .with("tls", "client_ca", pki.path("ca.pem").display().to_string())
                .with("tls", "crl", pki.path("clients.crl").display().to_string())
                .with("tls", "client_certificates", mode)
        })
        .await?;
        for (name, pair, expected) in cases.iter().chain([&("none", None, without)]) {
            let tls = pki.client_tls(pair.as_ref());
            let answer = asks(Client::connect_tls(server.endpoint(), tls).await).await;
            ensure!(answer.is_ok() == *expected, "{mode}, {name}: {answer:?}");
        }
        // What is revoked while the server runs is refused from the next handshake on.
        pki.write_revoked(&[66, 1])?;
        server.signal("HUP")?;
        until("the certificate is revoked", async || {
            let tls = pki.client_tls(Some(&valid));
            Ok(asks(Client::connect_tls(server.endpoint(), tls).await).await.is_err())
        })
        .await?;
        pki.write_revoked(&[66])?;
    }
    Ok(())
}

#[tokio::test]
async fn certificates_change_under_load_and_a_broken_pair_changes_nothing() -> Result<()> {
    let pki = Pki::new()?;
    pki.write_server()?;
    let (_database, server) = server(|config| with_tls(config, &pki)).await?;
    let stop = AtomicBool::new(false);
    let load = async {
        let mut asked = 0;
        while !stop.load(Ordering::Relaxed) {
            asks(Client::connect_tls(server.endpoint(), pki.client_tls(None)).await).await?;
            asked += 1;
        }
        anyhow::Ok(asked)
    };
    let versions = [&rustls::version::TLS13];
    let rotate = async {
        let rotated = async {
            for _ in 0..3 {
                let before = handshake(&server, &pki, &versions).await?;
                pki.write_server()?;
                server.signal("HUP")?;
                until("the new certificate is served", async || {
                    Ok(handshake(&server, &pki, &versions).await? != before)
                })
                .await?;
            }
            // A key that doesn't fit, half a file, no file.
            let before = handshake(&server, &pki, &versions).await?;
            let good = std::fs::read_to_string(pki.path("server.pem"))?;
            for (number, spoilt) in
                [Some(pki.server()?.certificate), Some(good[..200].to_owned()), None].into_iter().enumerate()
            {
                match spoilt {
                    Some(text) => std::fs::write(pki.path("server.pem"), text)?,
                    None => std::fs::remove_file(pki.path("server.pem"))?,
                }
                server.signal("HUP")?;
                until("the fault is told", async || {
                    let counted = format!("fed_reload_failures {}", number + 1);
                    Ok(server.metrics().await?.lines().any(|line| line == counted))
                })
                .await?;
                ensure!(handshake(&server, &pki, &versions).await? == before, "another certificate is served");
                let (_, body) = server.admin_get("/readyz").await?;
                ensure!(body.contains("server.pem"), "{body}");
            }
            std::fs::write(pki.path("server.pem"), good)?;
            server.signal("HUP")?;
            until("all is well", async || Ok(server.admin_get("/readyz").await?.1.contains("\"reload\": \"ok\""))).await
        };
        let rotated = rotated.await;
        stop.store(true, Ordering::Relaxed);
        rotated
    };
    let (asked, rotated) = tokio::join!(load, rotate);
    rotated?;
    ensure!(asked? > 0);
    Ok(())
}

#[tokio::test]
async fn silent_peers_keep_nobody_waiting() -> Result<()> {
    let pki = Pki::new()?;
    pki.write_server()?;
    let (_database, server) = server(|config| {
        with_tls(config, &pki).with("server", "handshake_timeout", "2s").with(
            "server",
            "max_connections_per_address",
            400,
        )
    })
    .await?;
    let address = server.endpoint().trim_start_matches("https://").to_owned();
    let mut silent = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(&address).await?;
        if number % 3 == 0 {
            // Half of a ClientHello.
            stream.write_all(b"\x16\x03\x01\x02\0\x01\0").await?;
        }
        silent.push(stream);
    }
    asks(Client::connect_tls(server.endpoint(), pki.client_tls(None)).await).await?;
    until("the silent are closed", async || {
        let metrics = server.metrics().await?;
        Ok(metrics.contains(r#"fed_connections_refused{reason="handshake_timeout"} 300"#))
    })
    .await?;
    for mut stream in silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await?;
    }
    Ok(())
}

#[tokio::test]
async fn connections_are_limited_in_number_and_age() -> Result<()> {
    let pki = Pki::new()?;
    pki.write_server()?;
    let (_database, server) = server(|config| {
        with_tls(config, &pki).with("server", "max_connections_per_address", 3).with("tls", "max_connection_age", "2s")
    })
    .await?;
    let connect = || Client::connect_tls(server.endpoint(), pki.client_tls(None));
    let held = [connect().await?, connect().await?, connect().await?];
    ensure!(asks(connect().await).await.is_err(), "a fourth connection is served");
    let metrics = server.metrics().await?;
    ensure!(metrics.contains(r#"fed_connections_refused{reason="max_connections_per_address"}"#), "{metrics}");
    until("old connections end", async || Ok(server.metrics().await?.lines().any(|line| line == "fed_connections 0")))
        .await?;
    // A client that is told to go connects anew.
    asks(Ok(held[0].clone())).await
}

#[tokio::test]
async fn the_admin_port_asks_for_its_token() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("admin");
    std::fs::write(&file, "0123456789abcdef-one\n")?;
    let (_database, server) =
        server(|config| config.with("server", "admin_token_file", file.display().to_string())).await?;
    let admin = server.admin_address()?;
    let get = async |path: &str, headers: &str| http_get_with(&admin, path, headers).await;
    let right = "authorization: Bearer 0123456789abcdef-one\r\n";
    until("the server is ready", async || Ok(get("/readyz", right).await?.0 == 200)).await?;
    for (path, headers, status, shows) in [
        ("/livez", "", 200, true),
        ("/readyz", "", 200, false),
        ("/readyz", right, 200, true),
        ("/metrics", "", 401, false),
        ("/metrics", "authorization: Bearer 0123456789abcdef-on\r\n", 401, false),
        ("/metrics", "authorization: Bearer 0123456789abcdef-one \r\nx: y\r\n", 200, true),
        ("/metrics", "authorization: bearer 0123456789abcdef-one\r\n", 401, false),
        ("/metrics", "authorization: Bearer \r\n", 401, false),
        ("/metrics?token=0123456789abcdef-one", "", 401, false),
        ("/metrics", right, 200, true),
        ("//metrics", right, 404, false),
        ("/livez/../metrics", "", 404, false),
        ("/%6detrics", "", 404, false),
    ] {
        let (found, body) = get(path, headers).await?;
        ensure!(found == status && body.is_empty() != shows, "{path} {headers:?}: {found}\n{body}");
    }
    std::fs::write(&file, "0123456789abcdef-two")?;
    server.signal("HUP")?;
    until("the token is another one", async || Ok(get("/metrics", right).await?.0 == 401)).await?;
    std::fs::write(&file, "short")?;
    server.signal("HUP")?;
    let new = "authorization: Bearer 0123456789abcdef-two\r\n";
    until("the fault is told", async || Ok(get("/readyz", new).await?.1.contains("holds no token"))).await?;

    let output = run(&["check", "--print-config", "--config", &server.config_path().display().to_string()]).await?;
    ensure!(output.success && !output.stdout.contains("0123456789abcdef"), "{}", output.stdout);
    Ok(())
}
