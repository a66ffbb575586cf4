"""Instruction sets as data: from isa_specs/*.yaml to typed machines, words and their meaning.

load          YAML + configuration -> Isa (tree: lines for errors; expr: safe arithmetic;
              config, memories, fields, instructions, meaning: one section each)
spec          the types
bits          columns of field values <-> words; micro-ops
program_file  the .npz program file        listing, show   text for people
expand        instruction -> scalar dataflow
interpreter   runs the stated meaning, slowly: the oracle for the fast simulator
selfcheck     what `csp-embed isa check` runs
"""
