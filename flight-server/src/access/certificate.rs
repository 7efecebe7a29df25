//! The names in a client's certificate, which the handshake has verified.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// URIs, DNS names and common names, in this order. Empty of a certificate that can't be read.
pub(crate) fn names_of(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = || alternative.iter().flat_map(|names| &names.value.general_names);
    let uris = alternative().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    let hosts = alternative().filter_map(|name| if let GeneralName::DNSName(host) = name { Some(*host) } else { None });
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    uris.chain(hosts).chain(common).map(str::to_owned).collect()
}
