//! Refusals about routers and their interfaces.

use ipnet::IpNet;
use uuid::Uuid;

/// Why a request about a router is refused. Each is an exception of Neutron.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouterError {
    /// The request is no sensible one.
    #[error("Bad router request: {0}.")]
    BadRequest(String),
    /// The router has interfaces.
    #[error("Router {id} has ports still attached: {ports}")]
    InUse {
        /// The router.
        id: Uuid,
        /// Its first few interfaces.
        ports: String,
    },
    /// The port is no interface of the router.
    #[error("Router {router} does not have an interface with id {port}")]
    NoInterface {
        /// The router.
        router: Uuid,
        /// The port.
        port: Uuid,
    },
    /// The router has no interface on the subnet.
    #[error("Router {router} has no interface on subnet {subnet}")]
    NoInterfaceOnSubnet {
        /// The router.
        router: Uuid,
        /// The subnet.
        subnet: Uuid,
    },
    /// The interface has no address of the subnet.
    #[error("Subnet on port {port} does not match the requested subnet {subnet}.")]
    SubnetMismatch {
        /// The interface.
        port: Uuid,
        /// The subnet.
        subnet: Uuid,
    },
    /// A static route goes out of the interface.
    #[error(
        "Router interface for subnet {subnet} on router {router} cannot be deleted, as it is \
         required by one or more routes."
    )]
    InterfaceInUseByRoute {
        /// The router.
        router: Uuid,
        /// The subnet.
        subnet: Uuid,
    },
    /// A static route is not possible.
    #[error("Invalid format for routes: {destination}, {reason}")]
    InvalidRoute {
        /// Where the route goes.
        destination: IpNet,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Too many static routes.
    #[error(
        "Unable to complete operation for {id}. \
         The number of routes exceeds the maximum {max}."
    )]
    TooManyRoutes {
        /// The router.
        id: Uuid,
        /// Most routes that it can have.
        max: usize,
    },
    /// The port is somebody's.
    #[error(
        "Unable to complete operation on port {port} for network {network}. \
         Port already has an attached device {device}."
    )]
    PortInUse {
        /// The port.
        port: Uuid,
        /// Its network.
        network: Uuid,
        /// Who uses it.
        device: String,
    },
    /// A router's interface is removed through the router.
    #[error(
        "Port {0} cannot be deleted directly via the port API: \
         has device owner network:router_interface."
    )]
    InterfaceDeleted(Uuid),
}
