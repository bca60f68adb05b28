"""Keys, certificates and permissions of NATS."""
