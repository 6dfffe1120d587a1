//! DHCP for IPv4 (RFC 2131, RFC 2132).

/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;
/// UDP port of servers.
pub const SERVER_PORT: u16 = 67;
