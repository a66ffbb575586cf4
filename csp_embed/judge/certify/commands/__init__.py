"""Streams of commands with state, proved right for all inputs (docs/certify.md, "Streams of
commands").

points   loops and guards of a meaning, as the points of each innermost statement
memory   rows, lanes and HOST that hold values of the field instead of bytes
run      the stream in program order, by the judge's own reading of the spec's meanings
steps    what a copy out makes of a sum, against the formula's steps, by intervals
certify  the parts of the certificate
"""
