"""What Moorage carries, measured: `python -m benchmarks` runs everything in a few minutes."""
