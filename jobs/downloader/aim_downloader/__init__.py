"""Fills a model cache volume from `hf://` or `s3://`, checked and resumable. Runs in tenants'
pods: no bus, no Kubernetes client."""
