"""NATS: the connection, publishing, reading a stream, the streams themselves, and a server of our own."""
