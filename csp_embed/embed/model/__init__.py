"""The lifted model in CP-SAT: one family of constraints per file, the objective, a first answer."""
