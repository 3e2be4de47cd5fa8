"""Upgrade, rollback, loss and restoration of a whole stack under traffic, on one machine."""
