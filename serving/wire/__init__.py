"""TensorFlow Serving prediction messages of our own package: upstream bytes, no TensorFlow."""
