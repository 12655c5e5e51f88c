//! Certificates that sign themselves, made by the program `openssl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;

/// The host in the certificates. The servers listen on all addresses of this machine.
pub(crate) const NAMED: &str = "127.0.0.1";

/// An address of the same servers that is not in the certificates.
pub(crate) const UNNAMED: &str = "127.0.0.2";

/// A certificate for [`NAMED`], and its key.
pub(crate) struct Certificate {
    /// The file of the certificate.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) key: String,
}

impl Certificate {
    /// Makes a certificate in this directory.
    pub(crate) fn make(directory: &Path, name: &str) -> Outcome<Self> {
        let [settings, path, key] =
            ["cnf", "crt", "key"].map(|extension| directory.join(name).with_extension(extension));
        // rustls accepts no certificate of an authority as that of a server.
        let text = format!(
            "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = extensions\n\
             [name]\nCN = {name}\n\
             [extensions]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = IP:{NAMED}\n"
        );
        fs::write(&settings, text)?;
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "2", "-config"])
            .arg(&settings)
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&path)
            .output()
            .map_err(|error| format!("openssl does not run, install it ({error})"))?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into());
        }
        Ok(Self { text: fs::read_to_string(&path)?, key: fs::read_to_string(&key)?, path })
    }
}
