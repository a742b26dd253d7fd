"""The diffusers engine: pictures and videos out of texts, on torch. Behind an extra."""
