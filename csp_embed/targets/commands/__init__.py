"""Streams of commands that the host writes out one by one, for machines of `control: stream`.

transfers   which commands move tiles between HOST and rows, and how many at once
regions     where the elements of an operand lie in HOST
epilogue    which copy out computes the steps behind the sums exactly, and with what settings
order       steps in blocks of sums; which tiles stay on the chip (the furthest next use leaves)
planner     commands with the state that they need: a state is set where it differs
lower       an embedding to a stream and its memory image
"""
