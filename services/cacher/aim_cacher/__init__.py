"""Fills ModelCaches: one volume and one download per source and namespace."""
