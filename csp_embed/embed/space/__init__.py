"""The domain of the lifted model: digits, and every way to carry an axis that keeps the rules."""
