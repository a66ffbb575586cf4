"""Lower bounds, each with its proof; independent of how plans are found."""
