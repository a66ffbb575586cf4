"""Programs as C text: loops around a machine's templates.

nest      loops and template calls as values
places    where the elements of an operand lie in a packed buffer
tiles     how many sums are kept in registers, and the order of loops
lower     an embedding as nests
correct   what an unsigned factor adds to a sum, taken away again
emit      nests and packing as C
plain     an operator as plain loops, for what has no embedding
build     the C compiler, and calls through ctypes
interpret nests by the meanings of their templates alone
"""
