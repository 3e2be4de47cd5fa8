"""Trains, calibrates, evaluates and exports the lesion classifier."""
