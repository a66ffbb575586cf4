"""Which embedding and schedule win: candidates, what was measured of them, what was kept."""
