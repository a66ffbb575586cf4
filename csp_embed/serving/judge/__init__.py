"""The judges of serving plans: exact arithmetic, no solver, no code of the searches."""
