"""The C text: functions that move data, nests as statements, a main that tests."""
