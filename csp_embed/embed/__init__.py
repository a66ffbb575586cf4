"""Embeddings: which scalar operation runs in which lane of which micro-operation.

`embed(op, isa, layout=…, top=…)` finds them; `layout.pack` and `layout.unpack` move tensors.
"""

from csp_embed.embed.search import embed

__all__ = ["embed"]
