"""From decisions to times: schedules, loads and constraints, in floats and exactly."""
