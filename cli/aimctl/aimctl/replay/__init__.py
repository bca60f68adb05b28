"""A recording, and a service run over it again."""
