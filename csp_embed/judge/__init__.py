"""Every checker.  Imports ir, machine, ops and errors only (enforced): a judge shares no code with
whoever built what it judges, and recounts from the same inputs by itself.
"""
