"""Networks of the learned transceivers."""
