"""Applies reports to the status of the resources."""
