"""Plans as text, pages, pictures and traces."""
