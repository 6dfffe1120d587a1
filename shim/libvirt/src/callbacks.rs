//! Registration for events. libvirt calls functions in C's way with a pointer of ours;
//! everything unsafe of this crate is here.
//!
//! Invariant: the pointer that libvirt keeps points at nothing. It is a number, by which
//! the [`Listener`] is found while its [`Callbacks`] live, and not found afterwards: when
//! libvirt gives up a registration is up to it (one that failed it may still call), and
//! nothing depends on that.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;
use virt_sys as sys;

use crate::reference::Reference;
use crate::{Error, Event, Happening, Listener};

/// Registrations of a connection; they end when it is dropped.
#[derive(Debug)]
pub(crate) struct Callbacks {
    connect: Reference,
    /// What libvirt calls them by.
    ids: Vec<c_int>,
    closing: bool,
    number: usize,
}

/// Those that are told, by number.
static LISTENERS: Mutex<BTreeMap<usize, Listener>> = Mutex::new(BTreeMap::new());

impl Callbacks {
    /// Has `listener` told of what happens to any domain, and of the connection's end.
    pub(crate) fn register(connect: &Reference, listener: &Listener) -> Result<Self, Error> {
        let mut callbacks = Callbacks {
            connect: connect.clone(),
            ids: Vec::new(),
            closing: false,
            number: enlist(listener),
        };
        callbacks.register_close()?;
        // SAFETY: which function belongs to which kind of event is libvirt's contract
        // (VIR_DOMAIN_EVENT_CALLBACK casts likewise); it is called as what it is.
        let (lifecycle, device) = unsafe {
            (
                std::mem::transmute::<Lifecycle, Generic>(on_lifecycle),
                std::mem::transmute::<Device, Generic>(on_device),
            )
        };
        for (kind, function) in [
            (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, device),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, device),
        ] {
            callbacks.register_domain(kind, function)?;
        }
        Ok(callbacks)
    }

    fn register_domain(
        &mut self,
        kind: sys::virDomainEventID,
        function: Generic,
    ) -> Result<(), Error> {
        let kind = c_int::try_from(kind).unwrap_or(c_int::MAX);
        // SAFETY: the connection is open as long as `self.connect` is; no domain means all
        // of them; `function` is the one for `kind`, and good for any pointer as `opaque`.
        let id = unsafe {
            let (connect, all) = (self.connect.as_ptr(), std::ptr::null_mut());
            sys::virConnectDomainEventRegisterAny(
                connect,
                all,
                kind,
                Some(function),
                self.opaque(),
                None,
            )
        };
        if id < 0 {
            return Err(virt::error::Error::last_error().into());
        }
        self.ids.push(id);
        Ok(())
    }

    fn register_close(&mut self) -> Result<(), Error> {
        // SAFETY: as of `register_domain`.
        let result = unsafe {
            let connect = self.connect.as_ptr();
            sys::virConnectRegisterCloseCallback(connect, Some(on_close), self.opaque(), None)
        };
        if result < 0 {
            return Err(virt::error::Error::last_error().into());
        }
        self.closing = true;
        Ok(())
    }

    /// The number, as libvirt keeps it.
    fn opaque(&self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.number)
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        // Dropped without the lock.
        let _listener = listeners().remove(&self.number);
        for id in self.ids.drain(..) {
            // SAFETY: the connection is there, open or not, and `id` is of it. What fails
            // has ended by itself.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), id) };
        }
        if self.closing {
            // SAFETY: likewise; `on_close` is what was registered.
            unsafe {
                sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close))
            };
        }
    }
}

/// Gives a listener a number.
fn enlist(listener: &Listener) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    listeners().insert(number, Arc::clone(listener));
    number
}

fn listeners() -> MutexGuard<'static, BTreeMap<usize, Listener>> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type Lifecycle =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type Device =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);

/// virConnectDomainEventCallback. Called by libvirt's event loop.
///
/// # Safety
/// `domain` is one.
unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let number = |number: c_int| u32::try_from(number).unwrap_or(u32::MAX);
    let what = match (number(event), number(detail)) {
        (sys::VIR_DOMAIN_EVENT_STARTED, sys::VIR_DOMAIN_EVENT_STARTED_MIGRATED) => {
            Happening::Arriving
        }
        (sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED) => Happening::Left,
        _ => Happening::Changed,
    };
    // SAFETY: by this function's own contract.
    unsafe { tell_of(domain, what, opaque) };
    0
}

/// virConnectDomainEventDeviceAddedCallback and ...RemovedCallback, which are alike.
///
/// # Safety
/// As of [`on_lifecycle`].
unsafe extern "C" fn on_device(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: by this function's own contract.
    unsafe { tell_of(domain, Happening::Changed, opaque) };
}

/// virConnectCloseFunc.
extern "C" fn on_close(_: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    tell(opaque, Event::Closed);
}

/// # Safety
/// As of [`on_lifecycle`].
unsafe fn tell_of(domain: sys::virDomainPtr, what: Happening, opaque: *mut c_void) {
    let mut uuid = [0; 16];
    // SAFETY: `domain` is one, and a UUID has VIR_UUID_BUFLEN = 16 bytes.
    if unsafe { sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) } < 0 {
        return;
    }
    let uuid = Uuid::from_bytes(uuid);
    tell(opaque, Event::Domain { uuid, what });
}

/// Tells the listener of that number, if it is still there.
fn tell(opaque: *mut c_void, event: Event) {
    // It is called without the lock: it may take its own.
    let listener = listeners().get(&opaque.addr()).map(Arc::clone);
    if let Some(listener) = listener {
        listener(event);
    }
}
