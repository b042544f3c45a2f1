"""Datasets: videos and their split lists in, one manifest out (`adapters`, `manifests`); the pipeline's first step."""
