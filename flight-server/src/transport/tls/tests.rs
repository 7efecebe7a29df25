use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::*;

fn write_pair(config: &TlsConfig, name: &str, parts: [bool; 2]) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    if parts[0] {
        std::fs::write(&config.certificate, cert.pem()).unwrap();
    }
    if parts[1] {
        std::fs::write(&config.private_key, signing_key.serialize_pem()).unwrap();
    }
}

fn config(directory: &Path) -> TlsConfig {
    TlsConfig {
        certificate: directory.join("server.pem"),
        private_key: directory.join("server.key"),
        client_ca: None,
        client_certificates: ClientCertificates::None,
        crl: None,
        min_version: TlsVersion::V1_2,
        max_connection_age: Duration::from_secs(1),
    }
}

#[test]
fn a_pair_that_does_not_fit_leaves_the_old_one_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    write_pair(&config, "one.example", [true, true]);
    let files = TlsFiles::open(&config).unwrap();
    let first = files.current();
    assert!(!files.reload_if_changed().unwrap());

    // In the middle of a rotation, twice looked at; the fault is told once.
    write_pair(&config, "two.longer.example", [true, false]);
    let error = files.reload_if_changed().unwrap_err();
    assert!(matches!(error, TlsError::Pair { .. }), "{error}");
    assert!(Arc::ptr_eq(&files.current(), &first));
    assert!(!files.reload_if_changed().unwrap());
    for (spoil, expected) in
        [("", "there is no certificate"), ("-----BEGIN CERTIFICATE-----\nx", "cannot read certificate")]
    {
        std::fs::write(&config.certificate, spoil).unwrap();
        let error = files.reload_if_changed().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    std::fs::remove_file(&config.certificate).unwrap();
    assert!(files.reload_if_changed().is_err());
    assert!(Arc::ptr_eq(&files.current(), &first));

    write_pair(&config, "three.example", [true, true]);
    assert!(files.reload_if_changed().unwrap());
    assert!(!Arc::ptr_eq(&files.current(), &first));
}
