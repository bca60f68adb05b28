"""Runs models: one InferenceService for each AIMService."""
