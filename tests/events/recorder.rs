//! What keeps events: in order, again where it fails, and in nobody's way.
