"""anishathalye/neural-style and its Chinese-painting fork, which ran the same method on TensorFlow."""
