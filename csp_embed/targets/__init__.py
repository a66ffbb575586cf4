"""Ways to drive machines: `stream` writes instruction words for machines that run their own
loops."""
