"""Plans as launch lines of serving programs, where those can express them.

engines.engines(instance, plan) -> list[Engine]      what one running program would hold
vllm.lines, llamacpp.lines, routes.document          text or JSON of one target
"""
