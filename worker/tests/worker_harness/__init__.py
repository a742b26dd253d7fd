"""What the worker's tests run on: real processes, tiny models, a small Hub. See `conftest`."""
