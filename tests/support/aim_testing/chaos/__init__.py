"""Fault injection: a fast stand-in for a cluster, the six services as processes on it, faults as
data, and what must hold all the while."""
