"""Random operations on the control plane, an oracle of its own, and a repair that must always
succeed."""
