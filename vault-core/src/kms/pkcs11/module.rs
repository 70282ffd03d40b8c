//! Modules and tokens, once a process: a module is initialized once, and a login holds for all sessions of a token.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as ModuleError, RvError};
use cryptoki::session::{Session, SessionState, UserType};

use super::Trouble;
use super::pin::{self, Stamp};

static TOKENS: Mutex<BTreeMap<(PathBuf, String), Arc<Token>>> = Mutex::new(BTreeMap::new());
static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is one insertion or assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A token, by its label. It need not be plugged in.
pub(super) struct Token {
    module: Pkcs11,
    label: String,
    /// Held while logging in. What the PIN file was like when the token refused the PIN in it: that PIN is not tried
    /// again, or the token would lock itself.
    refused: Mutex<Option<Stamp>>,
}

/// The token of a module.
pub(super) fn token(module: &Path, label: &str) -> Result<Arc<Token>, Trouble> {
    let path = fs::canonicalize(module).map_err(|_| Trouble::Wrong("module", "there is no such file"))?;
    let key = (path, label.to_owned());
    if let Some(token) = lock(&TOKENS).get(&key) {
        return Ok(Arc::clone(token));
    }
    let module = load(&key.0)?;
    let token = Arc::new(Token { module, label: label.to_owned(), refused: Mutex::new(None) });
    Ok(Arc::clone(lock(&TOKENS).entry(key).or_insert(token)))
}

/// Loads and initializes a module, once; it stays for as long as the process.
fn load(path: &Path) -> Result<Pkcs11, Trouble> {
    let mut modules = lock(&MODULES);
    if let Some(module) = modules.get(path) {
        return Ok(module.clone());
    }
    let mode = fs::metadata(path).map_err(|_| Trouble::Wrong("module", "cannot be read"))?.mode();
    if mode & 0o022 != 0 {
        return Err(Trouble::Wrong(
            "module",
            "others may write it, and it is loaded into this process: mode 0755 or less",
        ));
    }
    let module = Pkcs11::new(path).map_err(|_| Trouble::Wrong("module", "is not a PKCS #11 module"))?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(ModuleError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(_) => return Err(Trouble::Absent("the module does not initialize")),
    }
    modules.insert(path.to_owned(), module.clone());
    Ok(module)
}

impl Token {
    /// A session that is logged in. With `write`, one that may make objects.
    pub(super) fn session(&self, pin_file: &Path, write: bool) -> Result<Session, Trouble> {
        let slots = self.module.get_slots_with_token().map_err(|_| Trouble::Absent("the module lists no tokens"))?;
        // A slot whose token went away meanwhile is as one without.
        let mut found = slots.into_iter().filter(|slot| {
            self.module.get_token_info(*slot).is_ok_and(|info| info.token_initialized() && info.label() == self.label)
        });
        let (slot, another) = (found.next(), found.next());
        let slot = slot.ok_or(Trouble::Absent("there is no token of this label"))?;
        if another.is_some() {
            return Err(Trouble::Wrong("token", "several tokens have this label"));
        }
        let session = if write { self.module.open_rw_session(slot) } else { self.module.open_ro_session(slot) };
        let session = session.map_err(|_| Trouble::Absent("the token opens no session"))?;
        self.log_in(&session, pin_file)?;
        Ok(session)
    }

    fn log_in(&self, session: &Session, pin_file: &Path) -> Result<(), Trouble> {
        let mut refused = lock(&self.refused);
        let state = session.get_session_info().map_err(|_| Trouble::Absent("the session was lost"))?.session_state();
        if matches!(state, SessionState::RoUser | SessionState::RwUser) {
            return Ok(());
        }
        let (pin, stamp) = pin::read(pin_file)?;
        if *refused == Some(stamp) {
            return Err(Trouble::Wrong(
                "pin_file",
                "the token refused this PIN; it is not tried again until the file changes",
            ));
        }
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(ModuleError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                *refused = None;
                Ok(())
            }
            Err(ModuleError::Pkcs11(
                RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked,
                _,
            )) => {
                *refused = Some(stamp);
                Err(Trouble::Wrong("pin_file", "the token refuses this PIN"))
            }
            Err(_) => Err(Trouble::Absent("the token does not log in")),
        }
    }
}
