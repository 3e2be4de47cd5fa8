"""A stand-in for TensorFlow Serving on one machine: the same gRPC calls, version folders, configuration, texts and metrics.

For laptops, tests and places without the real server's image. It binds loopback only unless told otherwise, offers no Classify,
Regress, MultiInference or REST predict, and answers INVALID_ARGUMENT to a request of no rows where the real server hangs.
"""
