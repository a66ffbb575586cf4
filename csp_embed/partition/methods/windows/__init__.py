"""A stretch of a schedule solved while all else stands still."""
