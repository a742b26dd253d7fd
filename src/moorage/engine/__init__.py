"""The loops that make observed state follow desired state, and tell of it."""
