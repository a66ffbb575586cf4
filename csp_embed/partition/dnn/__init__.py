"""Solving under the dnn-partitioning cost model: starts, annealing, exact rounds."""
