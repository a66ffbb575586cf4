"""Reading JSON and YAML into pydantic models, with errors that name file, line and item."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from csp_embed.errors import InputError
from csp_embed.files import readable
from csp_embed.narrow import is_object


class Strict(BaseModel):
    """Unknown keys and infinite numbers are errors; `id: 7` in YAML is the name "7"."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """`true` is 1 to Python, and "3" would do as 3; in a file both are mistakes."""
        assert info.field_name is not None
        field = cls.model_fields[info.field_name]
        # A field that reads texts itself (rates with units) says by itself what is none.
        reads = "Validator" in f"{field.annotation} {field.metadata}"
        if _numeric(str(field.annotation)):
            for name, item in _leaves(value, "this"):
                if isinstance(item, bool) or (_is_quoted_number(item) and not reads):
                    found = "true or false" if isinstance(item, bool) else f"the text {item!r}"
                    raise PydanticCustomError(
                        "truth",
                        "{item} is {found}, and a number is expected",
                        {"item": name, "found": found},
                    )
        return value


def _numeric(annotation: str) -> bool:
    return "bool" not in annotation and ("int" in annotation or "float" in annotation)


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """What stands in mappings, each with its key."""
    if is_object(value):
        for key, item in value.items():
            yield from _leaves(item, str(key))
    else:
        yield name, value


def _is_quoted_number(item: Any) -> bool:
    """Other texts are for whoever reads the field: `10 Gbit/s` has a unit."""
    if not isinstance(item, str) or type(item) is _Plain:
        return False
    try:
        float(item)
    except ValueError:
        return False
    return True


class _Plain(str):
    """Text without quotes that reads as a number: `1e6` is none to YAML 1.1, but to people."""

    __slots__ = ()


class Form(NamedTuple):
    """What is told of a file that is missing, is no text, or is neither JSON nor YAML."""

    missing: str
    text: str
    page: str


FORM = Form(
    "check the path; platforms/ has platforms, partition generate writes graphs",
    "graphs and platforms are JSON or YAML in UTF-8",
    "docs/partition.md shows the form",
)
Model = TypeVar("Model", bound=BaseModel)


def read_document(path: str | Path, form: Form = FORM) -> tuple[Any, bytes]:
    """The value in a JSON or YAML file, and its bytes. form: what is told of one that is none.
    Raises: InputError naming file and line."""
    data = read_bytes(path, form)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            "not a text file",
            where=str(path),
            why=str(error),
            hint=form.text,
        ) from error
    # By content, not by name: JSON is YAML too, but json reads large files much faster.
    if text.lstrip().startswith(("{", "[")):
        try:
            return json.loads(text, object_pairs_hook=_no_repeats), data
        except json.JSONDecodeError as error:
            # A YAML flow mapping may begin like JSON; only a file that calls itself JSON is told
            # so.
            if Path(path).suffix.lower() == ".json":
                raise InputError(
                    "not valid JSON",
                    where=f"{path}:{error.lineno}",
                    why=error.msg,
                    hint=form.page,
                ) from error
        except ValueError as error:
            raise InputError(
                "not valid JSON",
                where=str(path),
                why=str(error),
                hint=form.page,
            ) from error
    try:
        return yaml.load(text, Loader=_Loader), data
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or str(error)
        raise InputError("not valid YAML", where=where, why=reason, hint=form.page) from error


def read_bytes(path: str | Path, form: Form = FORM) -> bytes:
    """A file's bytes. Raises: InputError where it is missing or unreadable."""
    with readable(path, form.missing):
        return Path(path).read_bytes()


# As texts of fractions: exact, where 1e-6 as a float is not.
_UNITS = {"ns": "1/1000000", "us": "1/1000", "ms": "1", "s": "1000"}


def in_ms(value: float, unit: str) -> float:
    """A time in ms. 3 ns are 0.000003 ms to the last digit, which a product of floats need not
    be."""
    # repr is the shortest decimal that gives the float: what the file said.
    return float(Fraction(repr(float(value))) * Fraction(_UNITS[unit]))


def per_ms(value: float, unit: str) -> float:
    """A rate per `unit` as a rate per ms."""
    return float(Fraction(repr(float(value))) / Fraction(_UNITS[unit]))


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def parse(model: type[Model], value: Any, path: str | Path, format_name: str = "") -> Model:
    """`value` as `model`. Raises: InputError with the first offending item and its line."""
    if not is_object(value):
        raise InputError(
            "expected a mapping of keys to values",
            where=str(path),
            hint=FORM.page,
        )
    if format_name and value.get("format") != format_name:
        found = f"format is {value['format']!r}" if "format" in value else "there is no format key"
        raise InputError(
            f"not a {format_name} file", where=str(path), why=found, hint=f"format: {format_name}"
        )
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # One problem is told in full; the number of others says how much is left.
        first = error.errors(include_url=False, include_input=True)[0]
        # pydantic names its own validators in the path; they stand nowhere in the file.
        place = [p for p in first["loc"] if not str(p).startswith("function-")]
        reason = _reason(first)
        raise InputError(
            reason,
            where=f"{_with_line(path, place)}  {_dotted(place)}",
            why=f"{error.error_count()} such problems in all" if error.error_count() > 1 else "",
            hint="docs/partition.md lists the keys and their units",
        ) from error


def _reason(problem: Any) -> str:
    key = str(problem["loc"][-1]) if problem["loc"] else ""
    if problem["type"] == "missing" and isinstance(problem["loc"][-1], int):
        # A list of fixed length.
        return f"the list is too short: entry [{key}] is missing"
    if problem["type"] == "missing":
        return f"the key {key!r} is missing"
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}"
    if problem["type"] == "finite_number":
        return f"{key}: {problem['input']} is not a finite number"
    given = problem.get("input")
    shown = f" (it is {given!r})" if isinstance(given, (int, float, str, bool)) else ""
    return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}{shown}"


def _dotted(place: Sequence[Any]) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _with_line(path: str | Path, place: Sequence[Any]) -> str:
    """file:line of the item, or of its nearest parent that exists."""
    try:
        # As yaml.compose, which has no types.
        # Read once more, this time with lines: values alone do not know theirs.
        node: Any = yaml.SafeLoader(Path(path).read_text()).get_single_node()
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return str(path)
    line = 1
    for part in place:
        found: Any = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, found = key.start_mark.line + 1, value
        elif isinstance(part, int) and part < len(node.value):
            found = node.value[part]
            line = found.start_mark.line + 1
        if found is None:
            break
        node = found
    return f"{path}:{line}"


# json keeps the last of two equal keys.
def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise ValueError(f"the key {key!r} is there twice")
        out[key] = value
    return out


class _Loader(yaml.SafeLoader):
    """YAML that refuses a repeated key."""


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    # `<<` merges first, as SafeLoader does; only then are repeats mistakes.
    loader.flatten_mapping(node)
    out: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in out:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is there twice", key_node.start_mark
            )
        out[key] = loader.construct_object(value_node, deep=True)
    return out


def _text(loader: Any, node: yaml.ScalarNode) -> str:
    value = str(loader.construct_scalar(node))
    try:
        float(value)
    except ValueError:
        return value
    return value if node.style else _Plain(value)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG, _text)
yaml.SafeDumper.add_representer(_Plain, yaml.SafeDumper.represent_str)
