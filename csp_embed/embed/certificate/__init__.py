"""What was proved about an embedding, written down; and reuse of a proved embedding in other
shapes."""
