"""Publishes the changes of the cluster as events."""
