"""The control plane as processes on this machine."""
