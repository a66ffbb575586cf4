"""Machines of `control: source`: instructions are templates of C text inside loops."""
