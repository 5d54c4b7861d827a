"""The processes, over a real nats-server and a real store."""
