//! A door in the uplink's wire: a tap, behind which this machine is the host that has
//! the shim's address. So the generator carries the control channel of a device that
//! is measured, among the frames of the scenario.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nve_protocol::Mac;
use sluice_lab::process;

use crate::queue::MAX_FRAME;

/// Name of the tap.
const NAME: &str = "door";

/// `IFF_TAP`, `IFF_NO_PI`: Ethernet frames and nothing else (linux/if_tun.h).
const TAP: u16 = 0x0002;
const NO_INFORMATION: u16 = 0x1000;

/// `struct ifreq` with flags (netdevice(7)).
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

mod ioctl {
    // `TUNSETIFF`, which takes a pointer, though it is made for an `int`.
    nix::ioctl_write_ptr_bad!(
        make_tap,
        nix::request_code_write!(b'T', 202, size_of::<i32>()),
        super::Request
    );
}

/// The generator's end of the tap.
#[derive(Debug)]
pub struct Door {
    tap: File,
    mac: Mac,
    address: Ipv4Addr,
}

impl Door {
    /// Makes the tap in this thread's network namespace; its host has these addresses.
    pub fn open(mac: Mac, address: Ipv4Addr, prefix: u8) -> Result<Door> {
        let tap = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open("/dev/net/tun")
            .context("cannot open /dev/net/tun")?;
        let mut request = Request {
            name: [0; 16],
            flags: TAP | NO_INFORMATION,
            rest: [0; 22],
        };
        for (place, byte) in request.name.iter_mut().zip(NAME.bytes()) {
            *place = byte;
        }
        // SAFETY: the request is as long as the kernel reads, and lives that long.
        unsafe { ioctl::make_tap(tap.as_raw_fd(), &raw const request) }
            .context("cannot make a tap")?;
        for arguments in [
            format!("link set {NAME} address {mac} mtu 1500"),
            format!("addr add {address}/{prefix} dev {NAME}"),
            format!("link set {NAME} up"),
        ] {
            process::run("ip", arguments.split(' '))?;
        }
        Ok(Door { tap, mac, address })
    }

    /// Whether a frame that starts like this is for the host: by its MAC address, or
    /// because it asks for its address.
    pub fn is_for(&self, head: &[u8]) -> bool {
        is_for(head, self.mac, self.address)
    }

    /// Gives the host a frame.
    pub fn send(&self, frame: &[u8]) {
        // What it has no room for is lost, as on any wire.
        let _ = (&self.tap).write(frame);
    }

    /// The host's next frame, if there is one.
    pub fn receive(&self) -> Result<Option<Vec<u8>>> {
        let mut frame = vec![0; MAX_FRAME];
        match (&self.tap).read(&mut frame) {
            Ok(length) => {
                frame.truncate(length);
                Ok(Some(frame))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("cannot read from the tap"),
        }
    }
}

fn is_for(head: &[u8], mac: Mac, address: Ipv4Addr) -> bool {
    if head.starts_with(&mac.0) {
        return true;
    }
    let is_arp = head.get(12..14) == Some(&[0x08, 0x06]);
    is_arp && head.starts_with(&[0xff; 6]) && head.get(38..42) == Some(&address.octets())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_is_for_one_host() {
        let (mac, address) = (Mac([2, 0, 0, 0, 0, 9]), Ipv4Addr::new(192, 0, 2, 1));
        let arp = |to: [u8; 6], asked: [u8; 4]| {
            let parts: [&[u8]; 4] = [&to, &[7; 6], &[8, 6], &[0; 24]];
            [parts.concat(), asked.to_vec()].concat()
        };
        for (frame, expected) in [
            (arp([0xff; 6], [192, 0, 2, 1]), true),
            (arp([0xff; 6], [192, 0, 2, 2]), false),
            (arp(mac.0, [192, 0, 2, 2]), true),
            (arp([2, 0, 0, 0, 0, 8], [192, 0, 2, 1]), false),
            (mac.0.to_vec(), true),
            (vec![0xff; 42], false),
            (vec![0xff; 6], false),
            (vec![], false),
        ] {
            assert_eq!(is_for(&frame, mac, address), expected, "{frame:x?}");
        }
    }
}
