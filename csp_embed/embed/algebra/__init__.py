"""What digits imply: affine rows, packed grids and layouts, counts, the analytic cost."""
