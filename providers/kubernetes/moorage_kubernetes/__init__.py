"""Kubernetes as a provider: clusters that organizations import, by server-side apply."""
