"""Twenty minutes of traffic while one thing after another breaks, on one machine."""
