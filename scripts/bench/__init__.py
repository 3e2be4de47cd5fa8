"""`make bench`: Dermserve beside other ways to serve the same model, on one machine, in one run."""
