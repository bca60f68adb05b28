"""What the events of the log mean. Pure."""
