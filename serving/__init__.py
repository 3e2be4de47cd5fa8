"""The seam between training and gateway: what both sides must agree on."""
