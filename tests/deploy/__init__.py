"""What deploys the service: its image, and the files for Compose, Kubernetes and Cloud Run."""
