"""Methods for the smallest period: loads kept move by move, relaxation, exact groups, prices."""
