//! Certificates for tests: an authority, a server, clients of every kind, and lists of revoked ones.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use tempfile::TempDir;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// An authority with a directory for its files.
#[derive(Debug)]
pub struct Pki {
    directory: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, both as PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// What a client's certificate says.
#[derive(Debug, Clone)]
pub struct ClientCertificate<'a> {
    pub common_name: &'a str,
    /// Names that are URIs (`spiffe://…`).
    pub uri: Option<&'a str>,
    pub serial: u8,
    pub is_expired: bool,
    /// Good for a server only.
    pub is_servers: bool,
}

impl<'a> ClientCertificate<'a> {
    pub fn of(common_name: &'a str) -> Self {
        Self { common_name, uri: None, serial: 1, is_expired: false, is_servers: false }
    }
}

impl Pki {
    /// # Errors
    /// No directory, no key.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("ca.pem"), authority.pem())?;
        Ok(Self { directory, authority })
    }

    /// The directory of [`Self::write_server`]'s files and of `ca.pem`.
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub fn authority_pem(&self) -> String {
        self.authority.pem()
    }

    /// A certificate for `localhost` and 127.0.0.1.
    ///
    /// # Errors
    /// No key.
    pub fn server(&self) -> Result<Pair> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "Test server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// Puts a new certificate of the server's into `server.pem` and `server.key`.
    ///
    /// # Errors
    /// No key, no file.
    pub fn write_server(&self) -> Result<()> {
        let pair = self.server()?;
        std::fs::write(self.path("server.pem"), pair.certificate)?;
        std::fs::write(self.path("server.key"), pair.key)?;
        Ok(())
    }

    /// # Errors
    /// No key.
    pub fn client(&self, of: &ClientCertificate<'_>) -> Result<Pair> {
        self.sign(&client_params(of)?)
    }

    /// Puts the list of revoked serial numbers into `clients.crl`.
    ///
    /// # Errors
    /// No file.
    pub fn write_revoked(&self, serials: &[u8]) -> Result<()> {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(vec![*serial]),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(vec![1]),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        std::fs::write(self.path("clients.crl"), list.signed_by(&self.authority)?.pem()?)?;
        Ok(())
    }

    /// A client that believes this authority, and shows `identity`.
    pub fn client_tls(&self, identity: Option<&Pair>) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.authority_pem()));
        match identity {
            Some(pair) => config.identity(Identity::from_pem(&pair.certificate, &pair.key)),
            None => config,
        }
    }

    fn sign(&self, params: &CertificateParams) -> Result<Pair> {
        let key = KeyPair::generate()?;
        Ok(Pair { certificate: params.signed_by(&key, &self.authority)?.pem(), key: key.serialize_pem() })
    }
}

/// A certificate that its owner signed.
///
/// # Errors
/// No key.
pub fn self_signed(of: &ClientCertificate<'_>) -> Result<Pair> {
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: client_params(of)?.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

fn client_params(of: &ClientCertificate<'_>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, of.common_name);
    params.serial_number = Some(SerialNumber::from(vec![of.serial]));
    if let Some(uri) = of.uri {
        params.subject_alt_names.push(SanType::URI(uri.to_owned().try_into()?));
    }
    if of.is_expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    let usage = if of.is_servers { ExtendedKeyUsagePurpose::ServerAuth } else { ExtendedKeyUsagePurpose::ClientAuth };
    params.extended_key_usages = vec![usage];
    Ok(params)
}

/// Writes text where others can't read it.
///
/// # Errors
/// No file.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}
