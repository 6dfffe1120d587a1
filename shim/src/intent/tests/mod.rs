mod networks;
mod nves;
mod ports;
mod state;
mod subnets;
