"""Finds out what a model image can run, and from which sources."""
