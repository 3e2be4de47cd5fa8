"""What pictures cost on one machine, a simulation held against a run of the stack, and a plan for a country."""
