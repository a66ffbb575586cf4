"""`--reuse PROGRAM`: the embedding that a program file carries, for another shape."""

from __future__ import annotations

from pathlib import Path

from csp_embed.compiler.commands import file as command_file
from csp_embed.compiler.source.file import read
from csp_embed.errors import CheckError, InputError
from csp_embed.ir.embedding import Embedding
from csp_embed.judge.embedding.certificate import check_certificate, operator_of, rebuild
from csp_embed.machine.program_file import isa_meta, program_kind, read_program
from csp_embed.machine.spec import Isa
from csp_embed.narrow import is_object


def embedding_of(path: Path, isa: Isa) -> Embedding:
    """The embedding in a program's certificate, judged first.

    Raises: InputError where there is none or it is for another machine; CheckError where its
    certificate does not hold.
    """
    # Each kind of file carries its certificate in another place of its own.
    readers = {"commands": command_file.read, "source": read, "stream": read_program}
    meta = readers[program_kind(path)](path).meta
    document = meta.get("certificate")
    if not is_object(document) or "embedding" not in document:
        raise InputError(
            f"{path} carries no embedding",
            hint="compile writes one that does: csp-embed compile deepbench:conv000 -o conv000.npz",
        )
    # Another machine has other lanes: the embedding means nothing there.
    if document.get("machine") != isa_meta(isa):
        raise InputError(
            f"{path} was compiled for another machine",
            hint="give the same --isa and --vta-config, or compile without --reuse",
        )
    # Somebody else's file: its certificate is judged before it is believed.
    problems = check_certificate(document).problems
    if problems:
        raise CheckError(
            f"the certificate of {path} does not hold",
            why="; ".join(problems[:3]),
            hint="compile that program again",
        )
    return rebuild(document["embedding"], operator_of(document["operator"]), isa)
