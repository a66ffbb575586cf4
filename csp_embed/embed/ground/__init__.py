"""The ground model: embeddings straight from the definition, point by point.

Exact and for small problems: it enumerates every covering (regular or not), is the oracle of the
lifted model in `embed`, and says which rules contradict each other. `points` poses, `model` and
`enumerate` solve with CP-SAT; tests/oracles solves with python-constraint and without a solver;
judge/embedding/covering.py judges any covering; `symmetry` says which solutions are copies. `solve`
finds one covering with the fewest steps, also of thousands of points, where `affine_search` and
`bounds` do what CP-SAT cannot; `explain` names the families in conflict.
"""
