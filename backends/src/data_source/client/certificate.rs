//! The certificate that an endpoint shows: until when it is valid, and why it is not trusted.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::Response;
use reqwest::tls::TlsInfo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::failure::find;
use crate::data_source::excerpt::shortened;

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Validity {
    pub(super) from: SystemTime,
    pub(super) until: SystemTime,
}

/// Judges certificates as another verifier does, and says of one that is not trusted what a person
/// needs to mend it.
#[derive(Debug)]
pub(super) struct Explaining<V>(pub(super) V);

/// Why a certificate is not trusted.
#[derive(Debug)]
pub(super) struct Distrust {
    reason: String,
    validity: Option<Validity>,
}

/// The validity of the certificate behind an answer; `None` without TLS.
pub(super) fn shown(response: &Response) -> Option<Validity> {
    let info = response.extensions().get::<TlsInfo>()?;
    validity(&parsed(info.peer_certificate()?)?)
}

/// The validity of the certificate that ended a request.
pub(super) fn shown_in_vain(error: &reqwest::Error) -> Option<Validity> {
    distrust(find::<Error>(error)?)?.validity
}

/// What [`Explaining`] said of a certificate.
pub(super) fn distrust(error: &Error) -> Option<&Distrust> {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(why))) = error else {
        return None;
    };
    why.downcast_ref()
}

impl<V: ServerCertVerifier> ServerCertVerifier for Explaining<V> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| match error {
                Error::InvalidCertificate(fault) => {
                    let why = Arc::new(Distrust::of(&fault, end_entity));
                    Error::InvalidCertificate(CertificateError::Other(OtherError(why)))
                }
                error => error,
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.0.root_hint_subjects()
    }
}

impl Distrust {
    fn of(fault: &CertificateError, certificate: &[u8]) -> Self {
        let parsed = parsed(certificate);
        let self_signed = parsed
            .as_ref()
            .is_some_and(|parsed| parsed.issuer().as_raw() == parsed.subject().as_raw());
        let reason = match fault {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "is not valid yet".to_owned()
            }
            CertificateError::NotValidForName => "is for another name".to_owned(),
            CertificateError::NotValidForNameContext { presented, .. } => {
                let names = shortened(&presented.join(", "), 200);
                format!("is for another name: {names}")
            }
            _ if self_signed => "is self-signed".to_owned(),
            CertificateError::UnknownIssuer => {
                "is by an authority that is not trusted, or its chain is not whole".to_owned()
            }
            CertificateError::Revoked => "is revoked".to_owned(),
            fault => format!("is not accepted: {}", shortened(&fault.to_string(), 200)),
        };
        Self {
            reason,
            validity: parsed.as_ref().and_then(validity),
        }
    }
}

impl std::error::Error for Distrust {}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the endpoint's certificate {}", self.reason)?;
        if let Some(Validity { from, until }) = self.validity {
            let [from, until] = [from, until].map(httpdate::fmt_http_date);
            write!(f, " (valid from {from} to {until})")?;
        }
        Ok(())
    }
}

fn parsed(certificate: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(certificate)
        .ok()
        .map(|(_, parsed)| parsed)
}

fn validity(certificate: &X509Certificate<'_>) -> Option<Validity> {
    let validity = certificate.validity();
    Some(Validity {
        from: moment(validity.not_before)?,
        until: moment(validity.not_after)?,
    })
}

/// Nothing for times before 1970 and after 9999, which no honest certificate has.
fn moment(time: ASN1Time) -> Option<SystemTime> {
    let seconds = u64::try_from(time.timestamp()).ok()?;
    let end_of_years = 253_402_300_800;
    (seconds < end_of_years).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
