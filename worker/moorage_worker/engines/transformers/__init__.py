"""The transformers engine: classifiers, language models and speech, on torch. Behind an extra."""
