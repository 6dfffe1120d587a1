//! A VTEP that we did not write: the Linux kernel's.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use serde_json::json;

use super::Context;
use crate::netns::Netns;
use crate::reach;
use crate::site::Site;

const VTEP: &str = "192.0.2.50";
const MAC: &str = "02:00:5e:00:00:50";
/// Address of the station behind it.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let mut site = Site::start(&context.dir, &context.artifacts)?;
    site.add_network("red")?;
    site.add_vm(("a1", "red", 0, 11))?;
    site.open("a1")?;
    site.await_active()?;
    let station = create(&site)?;
    register(&site)?;
    let vm = &site.guest("a1")?.vm;
    ensure!(reach::ping(&vm.netns, ADDRESS, 5)?, "no ping to the VTEP");
    ensure!(
        reach::ping(&station, vm.interface.ip, 3)?,
        "no ping from the VTEP"
    );
    ensure!(
        reach::transfer(&vm.netns, &station, ADDRESS)?,
        "no TCP to the VTEP"
    );
    ensure!(
        reach::transfer(&station, &vm.netns, vm.interface.ip)?,
        "no TCP from the VTEP"
    );
    Ok(())
}

/// Makes a namespace with a `vxlan` device that floods to the first NVE and learns.
pub(crate) fn create(site: &Site) -> Result<Netns> {
    let station = site
        .lab
        .fabric
        .add_station("linux-vtep", &format!("{VTEP}/24"))?;
    let vni = site.network("red")?.vni;
    let remote = &site.nve(0)?.identity.vtep;
    station.ip(&format!(
        "link add vx0 address {MAC} mtu 1450 type vxlan id {vni} local {VTEP} remote {remote} \
         dstport 4789 dev eth0"
    ))?;
    station.ip(&format!("addr add {ADDRESS}/24 dev vx0"))?;
    station.ip("link set vx0 up")?;
    Ok(station)
}

pub(crate) fn register(site: &Site) -> Result<()> {
    let network = &site.network("red")?.id;
    let vtep = json!({
        "name": "linux",
        "address": VTEP,
        "networks": [network],
        "endpoints": [{"network_id": network, "mac_address": MAC, "ip_address": ADDRESS}],
    });
    site.control.api.post("/v1/vteps", &vtep).map(drop)
}
