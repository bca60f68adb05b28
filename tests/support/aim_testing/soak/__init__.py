"""Random operations on the control plane, an independent oracle, and a repair that must always
succeed."""
