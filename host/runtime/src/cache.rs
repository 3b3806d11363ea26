//! Compiled code on disk.
//!
//! Loading compiled code means running it, so a forged file would be the end of the sandbox.
//!
//! # Invariants
//!
//! 1. The directory belongs to this user and nobody else can write or read it.
//! 2. Every file is authenticated (HMAC-SHA256, with a key that lies in the directory) over its
//!    name and content before Wasmtime sees it; what does not match is removed, and counts as
//!    absent.
//! 3. A file's name is the hash of everything the code depends on: the module, the engine and its
//!    settings, and how modules are rewritten. Files appear whole, by rename.

use std::{
    fs,
    hash::{Hash, Hasher},
    io::{self, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use tidemill_types::ModuleHash;
use wasmtime::{Engine, component::Component};

use crate::error::Error;

/// Changes whenever admission or rewriting give the same module other code.
const REWRITE_VERSION: u32 = 2;
const MAC_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const KEY_FILE: &str = "key";

/// The cache in one directory, for one engine.
pub(crate) struct CodeCache {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
    engine: [u8; 32],
}

impl CodeCache {
    /// Opens or creates the cache.
    pub(crate) fn open(dir: PathBuf, engine: &Engine) -> Result<Self, Error> {
        let fail = |error: io::Error| unusable(&dir, &error.to_string());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(fail)?;
        let metadata = fs::metadata(&dir).map_err(fail)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(unusable(
                &dir,
                "it belongs to another user; choose another directory",
            ));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(unusable(
                &dir,
                "others have access to it; run chmod 700 on it",
            ));
        }
        let key = read_or_create_key(&dir).map_err(fail)?;
        Ok(Self {
            dir,
            key,
            engine: fingerprint(engine),
        })
    }

    /// The code of a module, if it is there and ours.
    #[expect(unsafe_code, reason = "deserialising code trusts it")]
    pub(crate) fn load(
        &self,
        module: &ModuleHash,
        engine: &Engine,
    ) -> Result<Option<Component>, Error> {
        let name = self.name(module);
        let path = self.dir.join(&name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&path, &error.to_string())),
        };
        let Some(code) = self.authenticated(&name, &bytes) else {
            tracing::warn!(path = %path.display(), "compiled code is not authentic, removed");
            fs::remove_file(&path).map_err(|error| unusable(&path, &error.to_string()))?;
            return Ok(None);
        };
        // SAFETY: the code was written by `store`, hence by Wasmtime's compiler: only this user
        // can write to the directory, and the code carries a MAC under this cache's key.
        let component = unsafe { Component::deserialize(engine, code) };
        component
            .map(Some)
            .map_err(|error| Error::Engine(format!("compiled code does not load: {error:#}")))
    }

    /// Keeps the code of a module.
    pub(crate) fn store(&self, module: &ModuleHash, code: &[u8]) -> Result<(), Error> {
        let name = self.name(module);
        let mac = self.mac(&name, code).finalize().into_bytes();
        write_whole(&self.dir, &name, &[&mac, code])
            .map_err(|error| unusable(&self.dir, &error.to_string()))
    }

    fn name(&self, module: &ModuleHash) -> String {
        let mut hash = Sha256::new();
        hash.update(module.as_bytes());
        hash.update(self.engine);
        format!("{}.cwasm", hex(&hash.finalize()))
    }

    fn mac(&self, name: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("keys may have any length");
        mac.update(&(name.len() as u64).to_le_bytes());
        mac.update(name.as_bytes());
        mac.update(code);
        mac
    }

    fn authenticated<'a>(&self, name: &str, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (mac, code) = bytes.split_at_checked(MAC_BYTES)?;
        self.mac(name, code).verify_slice(mac).ok()?;
        Some(code)
    }
}

fn unusable(path: &Path, message: &str) -> Error {
    Error::Cache {
        path: path.display().to_string(),
        message: message.to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}

fn read_or_create_key(dir: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = dir.join(KEY_FILE);
    if !path.try_exists()? {
        let mut key = [0; KEY_BYTES];
        io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut key)?;
        let temporary = write_temporary(dir, &[&key])?;
        // Whoever links first wins; the file is whole either way.
        match fs::hard_link(&temporary, &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => fs::remove_file(&temporary)?,
        }
    }
    let key = fs::read(&path)?;
    let wrong = |_wrong_length| io::Error::other("its key file is damaged; remove the directory");
    key.try_into().map_err(wrong)
}

fn write_temporary(dir: &Path, parts: &[&[u8]]) -> io::Result<PathBuf> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("{}-{number}.tmp", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)?;
    for part in parts {
        file.write_all(part)?;
    }
    Ok(path)
}

fn write_whole(dir: &Path, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = write_temporary(dir, parts)?;
    fs::rename(&temporary, dir.join(name))
}

/// A hash of the engine's version and settings.
fn fingerprint(engine: &Engine) -> [u8; 32] {
    struct Digested(Sha256);
    impl Hasher for Digested {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut hasher = Digested(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.write(&REWRITE_VERSION.to_le_bytes());
    hasher.0.finalize().into()
}
