"""Networks made from a few numbers and a seed."""
