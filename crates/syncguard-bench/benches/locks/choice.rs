//! One choice of the options of group commit.

/// One choice of the options. Without lanes, each operation has a request of its own.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) lanes: Option<(usize, usize)>,
    /// The most connections, where a backend has a pool.
    pub(crate) connections: u32,
}
