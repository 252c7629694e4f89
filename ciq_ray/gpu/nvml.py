"""NVML, NVIDIA's management library: sessions that are counted, and errors in a small vocabulary.

The binding is `nvidia-ml-py` (module `pynvml`), imported when the first session is opened. NVML is not to be
used over a fork: a forked process opens sessions of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from ciq_ray.errors import CiqError

__all__ = ["Kind", "Nvml", "NvmlError", "nvml", "open_nvml"]

Kind = Literal["refused", "unsupported", "lost", "absent", "other"]

# codes of nvml.h (nvmlReturn_t); by number, since older bindings lack some of the names
_KINDS: Final[dict[int, Kind]] = {
    2: "unsupported",  # invalid argument: how some devices say that they do not have it
    3: "unsupported",
    4: "refused",
    9: "absent",  # driver not loaded
    12: "absent",  # library not found
    13: "unsupported",  # function not found: driver older than the function
    15: "lost",
    16: "lost",  # reset required
    24: "unsupported",  # frequency not supported
    25: "unsupported",  # version of an argument
    26: "unsupported",  # deprecated
}
_NOT_FOUND: Final = 6


class NvmlError(CiqError, RuntimeError):
    """NVML did not do what was asked.

    Args:
        kind: ``refused`` (no permission), ``unsupported`` (not by this device or driver, or not with this
            value), ``lost`` (the device is gone), ``absent`` (no driver, library or binding) or ``other``.
        what: The function that was called.
        text: NVML's own words.
    """

    def __init__(self, kind: Kind, what: str, text: str) -> None:
        super().__init__(kind, what, text)
        self.kind = kind
        self.what = what
        self.text = text

    def __str__(self) -> str:
        return f"{self.what}: {self.text}"

    @property
    def refusal(self) -> bool:
        """Whether things go on without what was asked for: the device answers, and says no."""
        return self.kind in ("refused", "unsupported")


class Nvml:
    """An open session; see `nvml` and `open_nvml`."""

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise NvmlError("absent", "import pynvml", f"{error}; pip install nvidia-ml-py") from error
        self._module: Any = pynvml
        self.call("nvmlInit")

    def close(self) -> None:
        """End the session."""
        self.call("nvmlShutdown")

    def call(self, function: str, *arguments: Any) -> Any:
        """Call one of NVML's functions by its name.

        Raises:
            NvmlError: It failed, or the binding does not have it.
        """
        found = getattr(self._module, function, None)
        if found is None:
            raise NvmlError("unsupported", function, "this version of nvidia-ml-py does not have it")
        try:
            return found(*arguments)
        except self._module.NVMLError as error:
            raise NvmlError(_KINDS.get(error.value, "other"), function, str(error)) from error

    def ask(self, function: str, *arguments: Any) -> Any:
        """The same, but ``None`` if the device does not tell.

        Raises:
            NvmlError: It failed for another reason.
        """
        try:
            return self.call(function, *arguments)
        except NvmlError as error:
            if error.refusal:
                return None
            raise

    def handle(self, uuid: str) -> Any:
        """The handle of a card or of a MIG instance.

        Raises:
            NvmlError: ``lost``, also if the machine has no such device any more.
        """
        try:
            return self.call("nvmlDeviceGetHandleByUUID", uuid)
        except NvmlError as error:
            cause = error.__cause__
            if getattr(cause, "value", None) == _NOT_FOUND:
                raise NvmlError("lost", error.what, f"{error.text}: {uuid}") from cause
            raise

    def event_reasons(self, handle: Any) -> int | None:
        """Why the clocks of a card are what they are, as NVML's bits; ``None`` if it does not tell.

        Raises:
            NvmlError: The device is lost.
        """
        for function in (
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetCurrentClocksThrottleReasons",
        ):
            # the second is the first one's name in bindings and drivers before 535
            found = self.ask(function, handle)
            if found is not None:
                return int(found)
        return None


def open_nvml() -> Nvml:
    """Open a session that the caller closes.

    Raises:
        NvmlError: There is no NVML here (``absent``), or it does not start.
    """
    return Nvml()


@contextmanager
def nvml() -> Iterator[Nvml]:
    """A session; they may be nested, and cost 0.3 ms.

    Raises:
        NvmlError: There is no NVML here (``absent``), or it does not start.
    """
    session = open_nvml()
    try:
        yield session
    finally:
        session.close()
