"""HTTP surfaces: each module translates one surface's words to service calls, and holds no rules."""
