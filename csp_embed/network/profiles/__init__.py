"""What layers cost: measured on this machine, by roofline, and the files that keep it."""
