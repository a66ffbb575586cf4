"""Certifies programs for all inputs: docs/certify.md has the argument.

field (arithmetic), claims (what lies where), formula (the operator in the field), lanes and dram
(elements in the field), walk and stream (the program in the field), forms and epilogue (what is
done to sums), compare, example, certificate, run (the order of it all).
"""
