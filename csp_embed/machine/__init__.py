"""Instruction sets as data: from isa_specs/*.yaml to typed machines, words and their meaning.

load          YAML + configuration -> Isa (tree: lines for errors; expr: safe arithmetic;
              config, memories, fields, instructions, meaning: one section each)
spec          the types
bits          columns of field values <-> words; micro-ops
program_file  the .npz program file        listing, show   text for people
expand        instruction -> scalar dataflow
interpreter   runs the stated meaning, slowly: the oracle for the fast simulator
reach         how much of a memory the fields can address
compilable    what the compiler needs of a machine, each refusal with file:line
selfcheck     encodings and meanings against one another (`csp-embed isa check`; it then runs
              csp_embed/compiler/machine_suite.py: compiled operators against NumPy)
"""
