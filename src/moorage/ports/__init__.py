"""What the core needs from outside: `outside` the small ones, `provider` compute, `store` rows."""
