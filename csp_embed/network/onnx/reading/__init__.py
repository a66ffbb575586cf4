"""From a model file to a `Net`: mended, folded, shaped."""
