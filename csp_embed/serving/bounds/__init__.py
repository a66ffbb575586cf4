"""What no plan can exceed: prices of machines, from programs over sets that carry a layer."""
