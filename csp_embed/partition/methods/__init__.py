"""Ways to find a plan: one file each."""
