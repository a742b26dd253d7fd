"""The schema's history, applied at start by `migrate`."""
