"""Ways to carry out a plan, all with the same records: each takes a ledger and what opens the work."""
