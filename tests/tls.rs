//! TLS connections to PostgreSQL.
//!
//! The bundled libpq has no TLS, so these tests need the system's libpq:
//! `cargo test -p tests --no-default-features --features tls --test tls`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, TlsMode, params};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use singleton_core::testing::Scope;
use tempfile::TempDir;
use tests::TestServer;

/// The host name in the server's certificate, which does not contain the address 127.0.0.1.
const HOST: &str = "localhost";

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        // The name differs from that of the certificates. Otherwise they would look self-signed.
        let names = &mut parameters.distinguished_name;
        names.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap());
        Authority(issuer.unwrap())
    }

    /// Issues a certificate for a host name, and returns it and its key as PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes the authority's root certificate to a file, and returns its path.
    fn write_root(&self, directory: &TempDir, name: &str) -> PathBuf {
        let path = directory.path().join(name);
        std::fs::write(&path, self.0.pem()).unwrap();
        path
    }
}

/// Returns a scope whose services connect to `server` at `host` with a TLS mode and a root certificate.
fn scope(server: &TestServer, host: &str, mode: TlsMode, root: Option<&Path>) -> Scope {
    scope_with(server, host, "", Some(mode), root)
}

/// Returns a scope like [`scope`], with parameters in the URL and an optional TLS mode.
fn scope_with(
    server: &TestServer,
    host: &str,
    query: &str,
    mode: Option<TlsMode>,
    root: Option<&Path>,
) -> Scope {
    let port = server.port();
    let url = format!("postgresql://postgres@{host}:{port}/postgres?{query}");
    let mut config = DatabaseConfig::new(url.parse().unwrap());
    config.pool_timeout = Duration::from_secs(10);
    config.postgres.tls_mode = mode;
    config.postgres.tls_root_certificate = root.map(|root| root.to_str().unwrap().to_owned());
    config.postgres.socket_timeout = Some(Duration::from_millis(500));
    Scope::new().provide(ConfigService::new(config))
}

/// Returns whether the server sees the connection as encrypted.
fn is_encrypted() -> Result<bool, DbError> {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    DatabaseService::execute_query(sql, params! {})?[0].get("ssl")
}

/// Asserts that connecting fails with an error that contains `reason`.
#[track_caller]
fn assert_connect_fails(scope: Scope, reason: &str) {
    let error = scope.run(is_encrypted).unwrap_err();
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains(reason), "{text}");
}

#[test]
fn each_tls_mode_encrypts_and_verifies_as_documented() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let no_tls = "server does not support SSL";
    assert_connect_fails(scope(&server, HOST, TlsMode::Require, None), no_tls);
    let plain = scope(&server, HOST, TlsMode::Prefer, None);
    assert!(!plain.run(is_encrypted).unwrap());

    let directory = TempDir::new().unwrap();
    let (authority, other) = (Authority::new("one"), Authority::new("another"));
    let (certificate, key) = authority.issue(HOST);
    server.enable_tls(&certificate, &key);
    let root = authority.write_root(&directory, "root.crt");
    let other = other.write_root(&directory, "other.crt");

    let disabled = scope(&server, HOST, TlsMode::Disable, None);
    assert!(!disabled.run(is_encrypted).unwrap());
    for (host, mode, root) in [
        ("127.0.0.1", TlsMode::Prefer, None),
        ("127.0.0.1", TlsMode::Require, None),
        ("127.0.0.1", TlsMode::VerifyCa, Some(&*root)),
        (HOST, TlsMode::VerifyFull, Some(&*root)),
    ] {
        let scope = scope(&server, host, mode, root);
        assert!(scope.run(is_encrypted).unwrap(), "{mode:?} {host}");
    }

    let wrong_host = scope(&server, "127.0.0.1", TlsMode::VerifyFull, Some(&root));
    assert_connect_fails(wrong_host, "does not match host name");
    for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let wrong_root = scope(&server, HOST, mode, Some(&other));
        assert_connect_fails(wrong_root, "certificate verify failed");
        let missing = directory.path().join("missing.crt");
        let no_root = scope(&server, HOST, mode, Some(&missing));
        assert_connect_fails(no_root, "missing.crt");
    }
}

#[test]
fn root_certificate_without_mode_means_verify_full() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let directory = TempDir::new().unwrap();
    let (authority, other) = (Authority::new("one"), Authority::new("another"));
    let root = authority.write_root(&directory, "root.crt");
    let other = other.write_root(&directory, "other.crt");
    let scope = |host, query: &str, mode, root| scope_with(&server, host, query, mode, root);
    // The server has no TLS yet. The client must not fall back to an unencrypted connection.
    let plain = scope(HOST, "", None, Some(&*root));
    assert_connect_fails(plain, "server does not support SSL");

    let (certificate, key) = authority.issue(HOST);
    server.enable_tls(&certificate, &key);
    let in_url = |root: &Path| format!("sslrootcert={}", root.display());
    assert!(
        scope(HOST, "", None, Some(&*root))
            .run(is_encrypted)
            .unwrap()
    );
    assert!(
        scope(HOST, &in_url(&root), None, None)
            .run(is_encrypted)
            .unwrap()
    );
    for wrong_root in [
        scope(HOST, "", None, Some(&*other)),
        scope(HOST, &in_url(&other), None, None),
        scope(HOST, "sslrootcert=", None, Some(&*other)),
    ] {
        assert_connect_fails(wrong_root, "certificate verify failed");
    }
    let wrong_host = "does not match host name";
    assert_connect_fails(scope("127.0.0.1", "", None, Some(&*root)), wrong_host);
    assert_connect_fails(scope("127.0.0.1", &in_url(&root), None, None), wrong_host);
}

#[test]
fn stricter_of_setting_and_url_mode_is_used() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let authority = Authority::new("one");
    let (certificate, key) = authority.issue(HOST);
    server.enable_tls(&certificate, &key);
    for (query, mode) in [
        ("ssl=true", TlsMode::Disable),
        ("requiressl=1", TlsMode::Disable),
        ("sslm%6fde=require", TlsMode::Prefer),
        ("sslmode=disable", TlsMode::Require),
    ] {
        let scope = scope_with(&server, HOST, query, Some(mode), None);
        assert!(scope.run(is_encrypted).unwrap(), "{query} {mode:?}");
    }
    let directory = TempDir::new().unwrap();
    let root = authority.write_root(&directory, "root.crt");
    let query = "sslm%6fde=verify-full";
    let wrong_host = scope_with(
        &server,
        "127.0.0.1",
        query,
        Some(TlsMode::Prefer),
        Some(&root),
    );
    assert_connect_fails(wrong_host, "does not match host name");
}

#[test]
fn socket_timeout_applies_to_encrypted_connections() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let authority = Authority::new("one");
    let (certificate, key) = authority.issue(HOST);
    server.enable_tls(&certificate, &key);
    scope(&server, HOST, TlsMode::Require, None).run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        let frozen = server.freeze();
        let started = Instant::now();
        let error = connection
            .execute_query("SELECT 1", params! {})
            .unwrap_err();
        assert!(matches!(error, DbError::NoAnswer { .. }), "{error:?}");
        assert!(started.elapsed() < Duration::from_millis(1500));
        drop((connection, frozen));
        assert!(is_encrypted().unwrap());
    });
}

/// If the server rejects the first connection, libpq connects again: with TLS for `allow`, without TLS for `prefer`.
#[test]
fn fallback_of_allow_and_prefer_works_with_a_socket_timeout() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let authority = Authority::new("one");
    let (certificate, key) = authority.issue(HOST);
    server.enable_tls(&certificate, &key);
    for (rule, query, encrypted) in [
        ("hostssl", "sslmode=allow", true),
        ("hostnossl", "sslmode=prefer", false),
    ] {
        server.set_access_rules(&format!("{rule} all all 127.0.0.1/32 trust\n"));
        for timeout in [None, Some(Duration::from_secs(5))] {
            let url = format!(
                "postgresql://postgres@127.0.0.1:{}/postgres?{query}",
                server.port()
            );
            let mut config = DatabaseConfig::new(url.parse().unwrap());
            config.postgres.socket_timeout = timeout;
            let scope = Scope::new().provide(ConfigService::new(config));
            assert_eq!(
                scope.run(is_encrypted).unwrap(),
                encrypted,
                "{query} {timeout:?}"
            );
        }
    }
}
