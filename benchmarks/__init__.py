"""Measurements that the documentation quotes; run as `python -m benchmarks.clipping`."""
