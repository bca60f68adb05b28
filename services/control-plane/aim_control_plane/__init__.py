"""All services in one process, for small clusters."""
