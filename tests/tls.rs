//! Encrypted connections, with the system's libpq:
//! `cargo test -p tests --no-default-features --features tls --test tls`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, TlsMode, params};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use singleton_core::testing::Scope;
use tempfile::TempDir;
use tests::TestServer;

/// The name in the server's certificate. The address 127.0.0.1 is not in it.
const NAME: &str = "localhost";

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        // A different name than the server certificate's, which would otherwise look self-signed.
        let names = &mut parameters.distinguished_name;
        names.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap());
        Authority(issuer.unwrap())
    }

    /// Returns a certificate for a name, and its key.
    fn certify(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes the authority's certificate to a file for clients.
    fn file(&self, folder: &TempDir, name: &str) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, self.0.pem()).unwrap();
        path
    }
}

/// Returns a scope with a database at `host` and a TLS mode.
fn scope(server: &TestServer, host: &str, mode: TlsMode, root: Option<&Path>) -> Scope {
    scope_with(server, host, "", Some(mode), root)
}

/// Returns a scope with a database at `host`, a TLS mode, and parameters in the URL.
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

/// Returns whether the server reports the connection as encrypted.
fn is_encrypted() -> Result<bool, DbError> {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    DatabaseService::execute_query(sql, params! {})?[0].get("ssl")
}

#[track_caller]
fn assert_refused(scope: Scope, reason: &str) {
    let error = scope.run(is_encrypted).unwrap_err();
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains(reason), "{text}");
}

#[test]
fn each_tls_mode_encrypts_and_verifies_as_documented() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let refuses = "server does not support SSL";
    assert_refused(scope(&server, NAME, TlsMode::Require, None), refuses);
    let plain = scope(&server, NAME, TlsMode::Prefer, None);
    assert!(!plain.run(is_encrypted).unwrap());

    let folder = TempDir::new().unwrap();
    let (authority, other) = (Authority::new("one"), Authority::new("another"));
    let (certificate, key) = authority.certify(NAME);
    server.enable_tls(&certificate, &key);
    let root = authority.file(&folder, "root.crt");
    let other = other.file(&folder, "other.crt");

    let disabled = scope(&server, NAME, TlsMode::Disable, None);
    assert!(!disabled.run(is_encrypted).unwrap());
    for (host, mode, root) in [
        ("127.0.0.1", TlsMode::Prefer, None),
        ("127.0.0.1", TlsMode::Require, None),
        ("127.0.0.1", TlsMode::VerifyCa, Some(&*root)),
        (NAME, TlsMode::VerifyFull, Some(&*root)),
    ] {
        let scope = scope(&server, host, mode, root);
        assert!(scope.run(is_encrypted).unwrap(), "{mode:?} {host}");
    }

    let wrong_host = scope(&server, "127.0.0.1", TlsMode::VerifyFull, Some(&root));
    assert_refused(wrong_host, "does not match host name");
    for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let wrong_root = scope(&server, NAME, mode, Some(&other));
        assert_refused(wrong_root, "certificate verify failed");
        let missing = folder.path().join("missing.crt");
        let no_root = scope(&server, NAME, mode, Some(&missing));
        assert_refused(no_root, "missing.crt");
    }
}

#[test]
fn root_certificate_without_a_mode_verifies_the_server() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let (authority, other) = (Authority::new("one"), Authority::new("another"));
    let root = authority.file(&folder, "root.crt");
    let other = other.file(&folder, "other.crt");
    let scope = |host, query: &str, mode, root| scope_with(&server, host, query, mode, root);
    // The connection is refused if the server does not support TLS.
    let plain = scope(NAME, "", None, Some(&*root));
    assert_refused(plain, "server does not support SSL");

    let (certificate, key) = authority.certify(NAME);
    server.enable_tls(&certificate, &key);
    let in_url = |root: &Path| format!("sslrootcert={}", root.display());
    assert!(
        scope(NAME, "", None, Some(&*root))
            .run(is_encrypted)
            .unwrap()
    );
    assert!(
        scope(NAME, &in_url(&root), None, None)
            .run(is_encrypted)
            .unwrap()
    );
    for wrong_root in [
        scope(NAME, "", None, Some(&*other)),
        scope(NAME, &in_url(&other), None, None),
        scope(NAME, "sslrootcert=", None, Some(&*other)),
    ] {
        assert_refused(wrong_root, "certificate verify failed");
    }
    let wrong_host = "does not match host name";
    assert_refused(scope("127.0.0.1", "", None, Some(&*root)), wrong_host);
    assert_refused(scope("127.0.0.1", &in_url(&root), None, None), wrong_host);
}

#[test]
fn stricter_of_two_tls_modes_is_used() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let authority = Authority::new("one");
    let (certificate, key) = authority.certify(NAME);
    server.enable_tls(&certificate, &key);
    for (query, mode) in [
        ("ssl=true", TlsMode::Disable),
        ("requiressl=1", TlsMode::Disable),
        ("sslm%6fde=require", TlsMode::Prefer),
        ("sslmode=disable", TlsMode::Require),
    ] {
        let scope = scope_with(&server, NAME, query, Some(mode), None);
        assert!(scope.run(is_encrypted).unwrap(), "{query} {mode:?}");
    }
    let folder = TempDir::new().unwrap();
    let root = authority.file(&folder, "root.crt");
    let query = "sslm%6fde=verify-full";
    let wrong_host = scope_with(
        &server,
        "127.0.0.1",
        query,
        Some(TlsMode::Prefer),
        Some(&root),
    );
    assert_refused(wrong_host, "does not match host name");
}

#[test]
fn statement_times_out_on_an_encrypted_connection() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let authority = Authority::new("one");
    let (certificate, key) = authority.certify(NAME);
    server.enable_tls(&certificate, &key);
    scope(&server, NAME, TlsMode::Require, None).run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        let frozen = server.freeze();
        let began = Instant::now();
        let error = connection
            .execute_query("SELECT 1", params! {})
            .unwrap_err();
        assert!(matches!(error, DbError::NoAnswer { .. }), "{error:?}");
        assert!(began.elapsed() < Duration::from_millis(1500));
        drop((connection, frozen));
        assert!(is_encrypted().unwrap());
    });
}

/// libpq connects a second time, with or without encryption, if its first choice is refused.
#[test]
fn second_choice_of_encryption_works_with_a_socket_timeout() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let authority = Authority::new("one");
    let (certificate, key) = authority.certify(NAME);
    server.enable_tls(&certificate, &key);
    for (rule, query, encrypted) in [
        ("hostssl", "sslmode=allow", true),
        ("hostnossl", "sslmode=prefer", false),
    ] {
        server.set_access_rules(&format!("{rule} all all 127.0.0.1/32 trust\n"));
        for limit in [None, Some(Duration::from_secs(5))] {
            let url = format!(
                "postgresql://postgres@127.0.0.1:{}/postgres?{query}",
                server.port()
            );
            let mut config = DatabaseConfig::new(url.parse().unwrap());
            config.postgres.socket_timeout = limit;
            let scope = Scope::new().provide(ConfigService::new(config));
            assert_eq!(
                scope.run(is_encrypted).unwrap(),
                encrypted,
                "{query} {limit:?}"
            );
        }
    }
}
