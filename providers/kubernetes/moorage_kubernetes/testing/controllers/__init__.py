"""The small controllers that make a cluster of a store: each brings what is nearer to what is asked for."""
