"""The HTTP faces of one engine. A face translates; it knows nothing of runtimes."""
