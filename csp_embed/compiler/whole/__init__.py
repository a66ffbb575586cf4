"""A quantised network as one program: layouts, memory, one stream, and its run."""
