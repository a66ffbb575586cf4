"""The ground model: embeddings straight from the definition, point by point.

Exact and for small problems: it enumerates every covering (regular or not), is the oracle of the
lifted model in `embed`, and says which rules contradict each other. `problem` poses, `model` and
`enumerate` solve with CP-SAT, `posted` and `posted_regular` with python-constraint, `brute` and
`brute_regular` without a solver; `check` judges any covering; `symmetry` says which solutions are
copies. `solve` finds one covering with the fewest steps, also of thousands of points, where `fill`
and `bounds` do what CP-SAT cannot; `explain` names the families in conflict.
"""
