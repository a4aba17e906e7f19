//! The border to libpam: loaded when it is needed, so that nothing needs it to build or start.
//!
//! One function, [`Library::authenticate`], which blocks for as long as PAM's modules like. The
//! conversation answers every question for a password with the password and every other one with
//! the name; it shows nothing to anybody.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use crate::auth::secret::Secret;

/// The user is who they say.
pub const SUCCESS: c_int = 0;
/// There is no such user.
pub const USER_UNKNOWN: c_int = 10;
/// Symbols missing, service, system and buffer errors, no authentication information, aborted,
/// unknown module: nothing that says anything about the user.
pub const IS_OUTAGE: [c_int; 10] = [1, 2, 3, 4, 5, 8, 9, 19, 26, 28];

const BUFFER_ERROR: c_int = 5;
const CONVERSATION_ERROR: c_int = 19;
const ITEM_RHOST: c_int = 4;
const ITEM_FAIL_DELAY: c_int = 10;
const PROMPT_ECHO_OFF: c_int = 1;
const PROMPT_ECHO_ON: c_int = 2;
const SILENT: c_int = 0x8000;
const DISALLOW_NULL_PASSWORD: c_int = 1;
/// `PAM_MAX_NUM_MSG`.
const MESSAGES_MAX: c_int = 32;

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    unused: c_int,
}

type Converse = extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Conversation {
    converse: Converse,
    data: *mut c_void,
}

type Handle = *mut c_void;
type Start =
    unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *mut Handle) -> c_int;
type WithFlags = unsafe extern "C" fn(Handle, c_int) -> c_int;
type SetItem = unsafe extern "C" fn(Handle, c_int, *const c_void) -> c_int;

/// What the conversation answers with.
struct Answers {
    login: CString,
    password: zeroize::Zeroizing<Vec<u8>>,
}

/// The functions of libpam that are needed.
pub struct Library {
    start: Start,
    end: WithFlags,
    authenticate: WithFlags,
    account: WithFlags,
    set_item: SetItem,
    // Last, so that the functions never outlive what they are in.
    _library: libloading::Library,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("libpam")
    }
}

impl Library {
    /// Loads libpam.
    ///
    /// # Errors
    /// Why not, with the remedy.
    pub fn load() -> Result<Self, String> {
        let missing = |error: libloading::Error| {
            format!("auth.pam: libpam cannot be loaded: {error} (Debian: apt-get install libpam0g)")
        };
        // SAFETY: libpam's initialisers do nothing but prepare libpam itself, and the types are
        // those of <security/pam_appl.h>.
        unsafe {
            let library = libloading::Library::new("libpam.so.0").map_err(missing)?;
            Ok(Self {
                start: *library.get::<Start>(b"pam_start\0").map_err(missing)?,
                end: *library.get::<WithFlags>(b"pam_end\0").map_err(missing)?,
                authenticate: *library.get::<WithFlags>(b"pam_authenticate\0").map_err(missing)?,
                account: *library.get::<WithFlags>(b"pam_acct_mgmt\0").map_err(missing)?,
                set_item: *library.get::<SetItem>(b"pam_set_item\0").map_err(missing)?,
                _library: library,
            })
        }
    }

    /// Asks whether it is that user and whether they may come in now; PAM's code.
    ///
    /// # Errors
    /// When PAM cannot even be asked.
    pub fn authenticate(
        &self,
        service: &str,
        login: &str,
        password: &Secret,
        from: &str,
    ) -> Result<c_int, String> {
        const WRONG: c_int = 7;
        let (Ok(service), Ok(login), Ok(from)) =
            (CString::new(service), CString::new(login), CString::new(from))
        else {
            return Ok(USER_UNKNOWN);
        };
        if password.expose().contains('\0') {
            return Ok(WRONG);
        }
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(password.expose().len() + 1));
        bytes.extend_from_slice(password.expose().as_bytes());
        bytes.push(0);
        let answers = Answers { login, password: bytes };
        let data: *const Answers = &raw const answers;
        let conversation = Conversation { converse, data: data.cast_mut().cast() };
        let mut handle: Handle = ptr::null_mut();
        // SAFETY: all strings end in NUL and live until pam_end, which is called exactly once;
        // the handle stays in this thread.
        unsafe {
            let login = answers.login.as_ptr();
            let code =
                (self.start)(service.as_ptr(), login, &raw const conversation, &raw mut handle);
            if code != SUCCESS {
                return Err(format!("pam_start fails with code {code}"));
            }
            (self.set_item)(handle, ITEM_RHOST, from.as_ptr().cast());
            // Modules ask for a delay after a failure; failures are slowed elsewhere, and a
            // thread that sleeps would hold its place.
            (self.set_item)(handle, ITEM_FAIL_DELAY, no_delay as *const c_void);
            let mut code = (self.authenticate)(handle, SILENT | DISALLOW_NULL_PASSWORD);
            if code == SUCCESS {
                code = (self.account)(handle, SILENT | DISALLOW_NULL_PASSWORD);
            }
            (self.end)(handle, code);
            Ok(code)
        }
    }
}

extern "C" fn no_delay(_status: c_int, _microseconds: libc::c_uint, _data: *mut c_void) {}

/// Answers PAM's questions. Runs inside [`Library::authenticate`], in its thread.
extern "C" fn converse(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    let Ok(number) = usize::try_from(count) else { return CONVERSATION_ERROR };
    if number == 0 || count > MESSAGES_MAX || messages.is_null() || responses.is_null() {
        return CONVERSATION_ERROR;
    }
    // SAFETY: libpam hands over `count` messages and the pointer that pam_start got, which is
    // alive in the caller's frame; the array and its strings are freed by libpam with free(3),
    // so they come from calloc and strdup.
    unsafe {
        let answers = &*data.cast::<Answers>();
        let array = libc::calloc(number, size_of::<Response>()).cast::<Response>();
        if array.is_null() {
            return BUFFER_ERROR;
        }
        for n in 0..number {
            let message = *messages.add(n);
            let text = match (*message).style {
                PROMPT_ECHO_OFF => answers.password.as_ptr().cast(),
                PROMPT_ECHO_ON => answers.login.as_ptr(),
                _ => continue,
            };
            (*array.add(n)).text = libc::strdup(CStr::from_ptr(text).as_ptr());
        }
        *responses = array;
    }
    SUCCESS
}
