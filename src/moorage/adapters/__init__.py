"""Implementations of the ports. Only `main` knows which one serves which port."""
