"""Instruction sets as data: from isa_specs/*.yaml to typed machines, words and their meaning.

load          YAML + configuration -> Isa              spec          the types
reading/      the text: lines for errors, safe arithmetic, fields, meanings; schema, `isa convert`
commands/     machines of `control: stream`            templates/    machines of `control: source`
words/        columns of field values <-> words; listings; arrays for compiled loops
program_file  the .npz program file                    show          text for people
expand        instruction -> scalar dataflow           costs         what compilation weighs
interpreter   runs the stated meaning, slowly: the oracle for the fast simulator
reach         how much of a memory the fields can address
compilable    what the compiler needs of a machine, each refusal with file:line
selfcheck     encodings and meanings against one another (`csp-embed isa check`; it then runs
              csp_embed/compiler/machine_suite.py: compiled operators against NumPy)
"""
