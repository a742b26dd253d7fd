"""What a user can do, one module each: the only place that changes desired state."""
