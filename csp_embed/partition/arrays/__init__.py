"""A task graph on a platform as arrays: what every solver here reads."""
