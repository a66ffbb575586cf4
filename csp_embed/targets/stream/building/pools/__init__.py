"""Pools and elementwise programs: schedules of operators without a second factor."""
