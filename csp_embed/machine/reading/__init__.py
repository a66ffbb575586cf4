"""A specification's text: lines for errors, safe arithmetic, fields, meanings, the schema."""
