"""Why this embedding, why none, and what else there is: conflicts, relaxations, the Pareto
front."""
