"""Ways to find a plan: one file each; rooms for local search, windows and the period."""
