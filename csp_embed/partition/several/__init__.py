"""Several copies of a network in one plan: replicas, and shares of a batch."""
