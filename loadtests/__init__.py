"""Load tests: a black box over HTTP, which imports nothing of the gateway, of serving or of training."""
