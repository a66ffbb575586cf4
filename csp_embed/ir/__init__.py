"""Values between stages: operators, dataflows, embeddings, schedules, streams, networks, plans.

Each has `show()`, readable text, and `verify()`, the breaches of its own form as text, [] where it
is well formed. `TaskGraph` and `Platform` come from users' files: their `verify()` raises
InputError. Whether a value is *right* is for the judges to say, who share no code with these.
"""
