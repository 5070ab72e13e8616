//! What a volume on another machine asks of the network: a [`Connection`] to a server.
//!
//! Never blocks. The kernel implements it over its TCP stack, tests over sockets of the host.

/// How a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Not asked for, refused, broken, or ended by the server: [`Connection::open`] tries again.
    Closed,
    /// On its way.
    Opening,
    /// Bytes can pass. It stays so after the server has ended its side, until all that came before was received; then it
    /// is closed.
    Open,
}

/// A connection as a client to one server, which can be made again and again.
///
/// Dropping it ends it in order: what was taken to be sent still goes out, as far as the server lets it.
pub trait Connection {
    /// Begins to connect. What was left of an earlier connection is gone.
    fn open(&mut self);

    /// Ends the connection at once; what the server has not got yet, it never gets.
    fn close(&mut self);

    /// How it is.
    fn state(&self) -> ConnectionState;

    /// Takes as many bytes to send as there is room for. Returns how many.
    fn send(&mut self, bytes: &[u8]) -> usize;

    /// Hands over bytes that came. Returns how many: 0 when there are none now.
    fn receive(&mut self, bytes: &mut [u8]) -> usize;
}
