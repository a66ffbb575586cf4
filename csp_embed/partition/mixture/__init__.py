"""Layers shared between devices: samples go by several placements, in shares that are chosen.

relaxation (a linear program over fractions, its prices and its proved bound), pricing (placements
that are cheap under prices), mix (column generation between the two; a Plan).
"""
