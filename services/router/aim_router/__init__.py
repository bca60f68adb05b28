"""Exposes models: one HTTPRoute for each AIMService."""
