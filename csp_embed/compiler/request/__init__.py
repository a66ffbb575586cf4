"""What a compilation is asked for: arguments, options, operands, what is fixed while it runs."""
