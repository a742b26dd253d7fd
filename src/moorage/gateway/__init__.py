"""The data path: authenticate, choose a replica, forward, stream back, count.

It reads a route table that the control plane publishes and knows nothing else of deployments, so that it can
run inside the service or as a process of its own.
"""
