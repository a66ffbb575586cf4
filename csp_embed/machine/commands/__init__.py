"""Machines of `control: stream`: every command is written out, the host only feeds them."""
