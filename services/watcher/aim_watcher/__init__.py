"""The watcher: the cluster's changes as events. See README.md."""
