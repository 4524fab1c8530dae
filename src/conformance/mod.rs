//! Whether a backend of one's own keeps its promises.
