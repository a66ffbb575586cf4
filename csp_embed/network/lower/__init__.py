"""What a machine without a multiplier behind its sums can do exactly, layer by layer."""
