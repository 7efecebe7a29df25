//! `[tls]`: certificates of the server and of its clients.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::path;
use super::tree::{Faults, Section};

/// How the port is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file with the certificate chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub private_key: PathBuf,
    /// PEM file with the authorities of client certificates.
    pub client_ca: Option<PathBuf>,
    pub client_certificates: ClientCertificates,
    /// PEM file with lists of revoked client certificates.
    pub crl: Option<PathBuf>,
    pub min_version: TlsVersion,
    /// A connection is asked to end after this time, so that what was revoked since it began counts.
    pub max_connection_age: Duration,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    None,
    /// Checked when there is one.
    Optional,
    Required,
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

impl ClientCertificates {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

impl TlsVersion {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }
}

pub(super) fn read_tls(mut section: Section, base: &Path, faults: &mut Faults) -> Option<TlsConfig> {
    let place = section.place().clone();
    let is_written = section.is_written();
    let certificate = path(&mut section, "certificate", base, faults);
    let private_key = path(&mut section, "private_key", base, faults);
    let client_ca = path(&mut section, "client_ca", base, faults);
    let crl = path(&mut section, "crl", base, faults);
    let kinds = [ClientCertificates::None, ClientCertificates::Optional, ClientCertificates::Required];
    let client_certificates = section.parsed("client_certificates", "none, optional or required", faults, |text| {
        kinds.into_iter().find(|kind| kind.as_str() == text)
    });
    let versions = [TlsVersion::V1_2, TlsVersion::V1_3];
    let min_version = section
        .parsed("min_version", "1.2 or 1.3", faults, |text| {
            versions.into_iter().find(|version| version.as_str() == text)
        })
        .map_or(TlsVersion::V1_2, |found| found.value);
    let max_connection_age = section.duration("max_connection_age", faults).unwrap_or(Duration::from_secs(3600));
    if let Some(found) = &client_certificates
        && found.value != ClientCertificates::None
        && client_ca.is_none()
    {
        let key = section.key("client_certificates");
        faults.report(&found.place, key, "nobody could be believed; expected `client_ca` beside it");
    }
    if crl.is_some() && client_ca.is_none() {
        faults.report(&section.place_of("certificate"), section.key("crl"), "expected `client_ca` beside it");
    }
    // Whoever names the authorities wants certificates asked for.
    let default = if client_ca.is_some() { ClientCertificates::Required } else { ClientCertificates::None };
    let client_certificates = client_certificates.map_or(default, |found| found.value);
    section.finish(faults);
    match (certificate, private_key) {
        (Some(certificate), Some(private_key)) => Some(TlsConfig {
            certificate,
            private_key,
            client_ca,
            client_certificates,
            crl,
            min_version,
            max_connection_age,
        }),
        (None, None) if !is_written => None,
        (certificate, _) => {
            let missing = if certificate.is_none() { "tls.certificate" } else { "tls.private_key" };
            faults.report(&place, missing, "is missing; expected `certificate` and `private_key` together");
            None
        }
    }
}
