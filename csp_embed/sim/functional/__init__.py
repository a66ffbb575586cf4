"""Values: what a program leaves in DRAM, bit for bit."""
