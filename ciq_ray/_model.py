"""The base of the pydantic models: their errors are ours."""

from __future__ import annotations

import difflib
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ciq_ray.errors import CiqError, ConfigurationError
from searchers.errors import SearcherError

__all__ = ["Model", "describe"]

_SHOWN = 120


class Model(BaseModel):
    """A pydantic model that raises `error_class` wherever pydantic raises `ValidationError`.

    Unknown fields are refused, and assignments are validated; one that fails changes nothing.

    Attributes:
        error_class: What is raised, with one line for each field at fault.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    error_class: ClassVar[type[CiqError]] = ConfigurationError

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise _own_error(error) or self.error_class(describe(type(self), error)) from None

    # pydantic's mark for "nothing but the usual validation happens here": a model nested in another
    # one keeps the path of its fields in messages
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, **kwargs: Any) -> Self:
        """Pydantic's, with our errors."""
        try:
            return super().model_validate(obj, **kwargs)
        except ValidationError as error:
            raise cls.error_class(describe(cls, error)) from None

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **kwargs: Any) -> Self:
        """Pydantic's, with our errors."""
        try:
            return super().model_validate_json(json_data, **kwargs)
        except ValidationError as error:
            raise cls.error_class(describe(cls, error)) from None

    def __setattr__(self, name: str, value: Any) -> None:
        before = dict(self.__dict__)
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            self.__dict__.update(before)
            raise self.error_class(describe(type(self), error)) from None


def _own_error(error: ValidationError) -> Exception | None:
    """The error of ours behind it, if that is all and it is about the model as a whole."""
    items = error.errors(include_url=False)
    own = items[0].get("ctx", {}).get("error")
    whole = len(items) == 1 and not items[0]["loc"]
    return own if whole and isinstance(own, (CiqError, SearcherError)) else None


def describe(model: type[BaseModel], error: ValidationError) -> str:
    """What is wrong with each field, its value, and what it should be; one line a field."""
    lines: list[str] = []
    values: dict[str, list[tuple[str, Any, str]]] = {}
    for item in error.errors(include_url=False):
        place = tuple(item["loc"])
        own = item.get("ctx", {}).get("error")
        if item["type"] in ("extra_forbidden", "no_such_attribute") and len(place) == 1:
            lines.append(_unknown(model, str(place[0])))
        elif item["type"] == "missing":
            lines.append(f"`{_path(model, place)}` is missing; {model.__name__} needs it")
        elif own is not None and not place:
            lines.append(str(own))
        else:
            wish = str(own) if own is not None else item["msg"].replace("Input should", "it should")
            values.setdefault(str(place[0]) if place else "", []).append(
                (_path(model, place), item["input"], wish)
            )
    for found in values.values():
        # of the kinds of a union, the one that got furthest says most
        depth = max(path.count("[") for path, _, _ in found)
        path, value, _ = next(entry for entry in found if entry[0].count("[") == depth)
        wishes = dict.fromkeys(wish for other, _, wish in found if other == path)
        lines.append(f"`{path}` is {_short(value)}; {', or '.join(wishes)}")
    return "\n".join(lines)


def _path(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """The field and the positions in it; pydantic also lists which kind of a union was tried."""
    if not place:
        return model.__name__
    path = str(place[0])
    for step in place[1:]:
        if isinstance(step, int):
            path += f"[{step}]"
    return path


def _unknown(model: type[BaseModel], name: str) -> str:
    names = list(model.model_fields)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    return f"`{name}` is not a field of {model.__name__}.{hint} Its fields are {', '.join(names)}"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({type(value).__name__})"
