"""The ground model: embeddings straight from the definition, point by point.

Exact and for small problems: it enumerates every covering (regular or not), is the oracle of the
lifted model in `embed`, and says which rules contradict each other. `problem` poses, `model` and
`enumerate` solve with CP-SAT, `posted` with python-constraint, `brute` without a solver; `check`
judges any covering.
"""
