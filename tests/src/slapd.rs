//! A real directory server: slapd with a few people and groups, on loopback, with and without TLS.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{process, wait};

/// Where Debian's slapd may be.
const PROGRAM: &str = "/usr/sbin/slapd";
const START_MAX: Duration = Duration::from_secs(60);

/// Two people, one of them with a name that OCI cannot say, and a group of each kind.
const PEOPLE: &str = "\
dn: dc=example
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: ou=people,dc=example
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example
objectClass: organizationalUnit
ou: groups

dn: cn=searcher,dc=example
objectClass: person
cn: searcher
sn: searcher
userPassword: searcher-secret

dn: uid=lena,ou=people,dc=example
objectClass: inetOrgPerson
objectClass: posixAccount
uid: lena
cn: Lena
sn: Lena
uidNumber: 20001
gidNumber: 20001
homeDirectory: /home/lena
userPassword: lena-secret

dn: uid=Max.M,ou=people,dc=example
objectClass: inetOrgPerson
uid: Max.M
cn: Max
sn: Max
userPassword: max-secret

dn: cn=lab,ou=groups,dc=example
objectClass: groupOfNames
cn: lab
member: uid=lena,ou=people,dc=example

dn: cn=crew,ou=groups,dc=example
objectClass: posixGroup
cn: crew
gidNumber: 30001
memberUid: lena
";

/// A directory that runs.
#[derive(Debug)]
pub struct Slapd {
    scratch: tempfile::TempDir,
    child: Option<Child>,
    port: u16,
    tls_port: u16,
}

impl Slapd {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Self> {
        ensure!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: `make test` installs it");
        let scratch = tempfile::Builder::new().prefix("yadokari-slapd-").tempdir()?;
        let dir = scratch.path();
        certificates(dir)?;
        std::fs::create_dir(dir.join("db"))?;
        let show = dir.display();
        let config = format!(
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/nis.schema\ninclude /etc/ldap/schema/inetorgperson.schema\n\
             modulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {show}/pid\n\
             TLSCACertificateFile {show}/ca.pem\nTLSCertificateFile {show}/cert.pem\n\
             TLSCertificateKeyFile {show}/key.pem\n\
             database mdb\nsuffix dc=example\nrootdn cn=admin,dc=example\nrootpw admin\n\
             directory {show}/db\n\
             access to attrs=userPassword by anonymous auth by * none\n\
             access to * by dn.exact=cn=searcher,dc=example read by * none\n"
        );
        std::fs::write(dir.join("slapd.conf"), config)?;
        std::fs::write(dir.join("people.ldif"), PEOPLE)?;
        process::ok(
            Command::new("/usr/sbin/slapadd")
                .arg("-f")
                .arg(dir.join("slapd.conf"))
                .arg("-l")
                .arg(dir.join("people.ldif")),
        )?;
        let mut slapd = Self { child: None, port: free_port()?, tls_port: free_port()?, scratch };
        slapd.restart()?;
        Ok(slapd)
    }

    /// Starts it again after [`Slapd::kill`].
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        let urls = format!("ldap://127.0.0.1:{} ldaps://127.0.0.1:{}", self.port, self.tls_port);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.scratch.path().join("log"))?;
        let child = Command::new(PROGRAM)
            .args(["-d", "0", "-h", &urls, "-f"])
            .arg(self.scratch.path().join("slapd.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting slapd")?;
        self.child = Some(child);
        let up = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        let (port, tls_port) = (self.port, self.tls_port);
        wait::until("slapd", START_MAX, || (up(port) && up(tls_port)).then_some(()))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Without TLS.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.port)
    }

    /// With TLS.
    #[must_use]
    pub fn tls_url(&self) -> String {
        format!("ldaps://127.0.0.1:{}", self.tls_port)
    }

    /// The certificate that vouches for it.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.scratch.path().join("ca.pem")
    }

    /// The section of a gateway's configuration that names it; `how` are more lines.
    #[must_use]
    pub fn config(&self, url: &str, how: &str) -> String {
        format!(
            "[auth.ldap]\nurls = [{url:?}]\nbase = \"ou=people,dc=example\"\n\
             bind_dn = \"cn=searcher,dc=example\"\nbind_password = \"searcher-secret\"\n\
             filter = \"(&(objectClass=inetOrgPerson)(uid={{login}}))\"\n\
             group_base = \"ou=groups,dc=example\"\nca_file = {:?}\n{how}\n",
            self.ca().display().to_string()
        )
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A certificate authority and a server's certificate for 127.0.0.1 and localhost, in `dir`:
/// `ca.pem`, `cert.pem`, `key.pem`.
///
/// # Errors
/// When openssl fails.
pub fn certificates(dir: &Path) -> Result<()> {
    let script = "cd \"$0\"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
            -subj /CN=test-ca -keyout ca.key -out ca.pem \
            -addext basicConstraints=critical,CA:TRUE
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
            -subj /CN=localhost -keyout key.pem -out server.csr
        printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n' > ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
            -extfile ext -out cert.pem";
    process::ok(Command::new("bash").args(["-euc", script]).arg(dir)).map(|_| ())
}

/// A port that nobody has at the moment.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
