"""The processes: everything that touches the bus, the store, the clock or a terminal."""
