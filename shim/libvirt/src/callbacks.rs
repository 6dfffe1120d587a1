//! Registration for events. libvirt calls functions in C's way with a pointer of ours;
//! everything unsafe of this crate is here.
//!
//! Invariant: what a pointer that was handed over points at, a [`Listener`], lives until
//! libvirt calls [`release`] with it, which it does once for each registration when that
//! has ended and no call is under way, or never if the registration failed.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

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
}

impl Callbacks {
    /// Has `listener` told of what happens to any domain, and of the connection's end.
    pub(crate) fn register(connect: &Reference, listener: &Listener) -> Result<Self, Error> {
        let mut callbacks = Callbacks {
            connect: connect.clone(),
            ids: Vec::new(),
            closing: false,
        };
        callbacks.register_close(listener)?;
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
            callbacks.register_domain(kind, function, listener)?;
        }
        Ok(callbacks)
    }

    fn register_domain(
        &mut self,
        kind: sys::virDomainEventID,
        function: Generic,
        listener: &Listener,
    ) -> Result<(), Error> {
        let opaque = hand_over(listener);
        let kind = c_int::try_from(kind).unwrap_or(c_int::MAX);
        // SAFETY: the connection is open as long as `self.connect` is; no domain means all
        // of them; `function` is the one for `kind`; `opaque` is good until `release`.
        let id = unsafe {
            let (connect, all) = (self.connect.as_ptr(), std::ptr::null_mut());
            sys::virConnectDomainEventRegisterAny(
                connect,
                all,
                kind,
                Some(function),
                opaque,
                Some(release),
            )
        };
        if id < 0 {
            return Err(failed(opaque));
        }
        self.ids.push(id);
        Ok(())
    }

    fn register_close(&mut self, listener: &Listener) -> Result<(), Error> {
        let opaque = hand_over(listener);
        // SAFETY: as of `register_domain`.
        let result = unsafe {
            let connect = self.connect.as_ptr();
            sys::virConnectRegisterCloseCallback(connect, Some(on_close), opaque, Some(release))
        };
        if result < 0 {
            return Err(failed(opaque));
        }
        self.closing = true;
        Ok(())
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
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

/// A listener for libvirt to keep.
fn hand_over(listener: &Listener) -> *mut c_void {
    Box::into_raw(Box::new(Arc::clone(listener))).cast()
}

/// Takes back what a registration that failed was to keep.
fn failed(opaque: *mut c_void) -> Error {
    let error = virt::error::Error::last_error();
    // SAFETY: it is of `hand_over`, and libvirt did not keep it.
    unsafe { release(opaque) };
    error.into()
}

type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type Lifecycle =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type Device =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);

/// virConnectDomainEventCallback. Called by libvirt's event loop.
///
/// # Safety
/// `domain` is one, and `opaque` is of [`hand_over`] and not released.
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
///
/// # Safety
/// `opaque` is of [`hand_over`] and not released.
unsafe extern "C" fn on_close(_: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: by this function's own contract.
    unsafe { tell(opaque, Event::Closed) };
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
    // SAFETY: by this function's own contract.
    unsafe { tell(opaque, Event::Domain { uuid, what }) };
}

/// # Safety
/// `opaque` is of [`hand_over`] and not released.
unsafe fn tell(opaque: *mut c_void, event: Event) {
    // SAFETY: by this function's own contract, it is a listener, and nobody changes it.
    let listener = unsafe { &*opaque.cast::<Listener>() };
    listener(event);
}

/// virFreeCallback.
///
/// # Safety
/// `opaque` is of [`hand_over`], not released yet, and not used from now on.
unsafe extern "C" fn release(opaque: *mut c_void) {
    // SAFETY: by this function's own contract.
    drop(unsafe { Box::from_raw(opaque.cast::<Listener>()) });
}
