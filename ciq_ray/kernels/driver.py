"""Launching cubins through CUDA's driver API, by cuda-python (``cuda.bindings.driver``).

The context is the one torch has made current. A launch goes to torch's current stream, so that events,
graphs and torch's own work are in order with it. Its arguments are packed once, so that a launch costs two
calls, some microseconds.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

from ciq_ray.errors import ConfigurationError, ObjectiveFailure, UnsupportedError

__all__ = ["DriverError", "Function", "load", "stream"]

_STATIC_LIMIT: Final = 48 << 10
"""Shared memory beyond this many bytes must be asked for by an attribute of the function."""
_TOO_MUCH: Final = (
    "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
    "CUDA_ERROR_INVALID_VALUE",
    "CUDA_ERROR_INVALID_CLUSTER_SIZE",
    "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE",
)
"""What a launch answers that asks for more than the device has."""


class DriverError(RuntimeError):
    """A call of the CUDA driver failed.

    Attributes:
        name: CUDA's name of the error, such as ``CUDA_ERROR_ILLEGAL_ADDRESS``.
    """

    def __init__(self, call: str, name: str, text: str) -> None:
        super().__init__(f"CUDA error: {text} ({name} from {call})")
        self.name = name


class Function:
    """A kernel of a loaded cubin; made by `load`.

    Attributes:
        name: Its name in the binary.
        registers: Registers of a thread.
        local: Bytes of local memory of a thread, where spilled registers are.
        static_shared: Bytes of static shared memory of a block.
        max_threads: Most threads of a block.
    """

    def __init__(self, module: _Module, name: str) -> None:
        driver = _driver()
        self._module = module  # must outlive this
        self.name = name
        self._handle = _call("cuModuleGetFunction", module.handle, name.encode())
        kinds = driver.CUfunction_attribute

        def attribute(kind: Any) -> int:
            return int(_call("cuFuncGetAttribute", kind, self._handle))

        self.registers = attribute(kinds.CU_FUNC_ATTRIBUTE_NUM_REGS)
        self.local = attribute(kinds.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)
        self.static_shared = attribute(kinds.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)
        self.max_threads = attribute(kinds.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)

    def launcher(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        shared: int,
        arguments: Sequence[Any],
        keep: Any = None,
    ) -> Callable[[], None]:
        """Make a launch.

        Args:
            grid: Blocks in x, y and z.
            block: Threads in x, y and z.
            shared: Bytes of dynamic shared memory.
            arguments: C values (`ctypes`) in the kernel's order; pointers as ``c_uint64``.
            keep: What must live as long as the launch does.

        Raises:
            ConfigurationError: The arguments are not those of the kernel.
            ObjectiveFailure: ``resource_exceeded``: more threads or shared memory than the kernel can have.
        """
        self._check_arguments(arguments)
        threads = block[0] * block[1] * block[2]
        if threads > self.max_threads:
            raise ObjectiveFailure(
                "resource_exceeded",
                f"a block has {threads} threads, but {self.name} with {self.registers} registers a thread "
                f"runs with {self.max_threads} at most",
            )
        if shared + self.static_shared > _STATIC_LIMIT:
            self._allow_shared(shared)
        pointers = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        return _Launch(self, (*grid, *block, shared), pointers, (arguments, keep))

    def _allow_shared(self, shared: int) -> None:
        driver = _driver()
        kind = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        # as Triton does: the rest of the L1 cache is of little use to a kernel of this kind
        _call("cuFuncSetCacheConfig", self._handle, driver.CUfunc_cache.CU_FUNC_CACHE_PREFER_SHARED)
        try:
            _call("cuFuncSetAttribute", self._handle, kind, shared)
        except DriverError as error:
            if error.name != "CUDA_ERROR_INVALID_VALUE":
                raise
            raise ObjectiveFailure(
                "resource_exceeded",
                f"{self.name} needs {shared} bytes of dynamic and {self.static_shared} of static shared "
                "memory, more than the device has for a block",
            ) from error

    def _check_arguments(self, arguments: Sequence[Any]) -> None:
        """Against what the binary says of its parameters (CUDA 12.4 and later; unchecked before)."""
        if not hasattr(_driver(), "cuFuncGetParamInfo"):
            return
        sizes: list[int] = []
        while True:
            try:
                _, size = _call("cuFuncGetParamInfo", self._handle, len(sizes))
            except DriverError as error:
                if error.name == "CUDA_ERROR_INVALID_VALUE":  # there are no more
                    break
                return  # an older driver
            sizes.append(int(size))
        given = [ctypes.sizeof(argument) for argument in arguments]
        if sizes != given:
            raise ConfigurationError(
                f"`arguments` has sizes of {given} bytes, but {self.name} takes {sizes}; give numbers the "
                'types of its parameters with Scalar(value, "int64")'
            )


class _Launch:
    """Starts a kernel once for each call."""

    def __init__(self, function: Function, sizes: tuple[int, ...], pointers: Any, keep: Any) -> None:
        self._function = function
        self._sizes = sizes
        self._pointers = pointers
        self._keep = keep
        driver = _driver()
        self._start = functools.partial(driver.cuLaunchKernel, function._handle, *sizes)
        self._address = ctypes.addressof(pointers)
        self._success = driver.CUresult.CUDA_SUCCESS

    def __call__(self) -> None:
        (result,) = self._start(stream(), self._address, 0)
        if result != self._success:
            error = _error("cuLaunchKernel", result)
            if error.name in _TOO_MUCH:
                raise ObjectiveFailure("resource_exceeded", f"{self._function.name}: {error}") from error
            raise error


class _Module:
    """A loaded cubin, unloaded when nothing refers to it any more."""

    def __init__(self, cubin: bytes) -> None:
        self.handle = _call("cuModuleLoadData", cubin)
        self._end = weakref.finalize(self, _unload, _driver(), self.handle)
        self._end.atexit = False  # the context is gone by then, and the module with it


@functools.lru_cache(maxsize=64)
def load(cubin: bytes, name: str) -> Function:
    """Load a kernel; the 64 used last stay loaded.

    Args:
        cubin: The binary.
        name: The kernel's name in it.

    Raises:
        UnsupportedError: cuda-python is not installed.
        ObjectiveFailure: ``resource_exceeded``: it needs more registers or shared memory than there is.
        DriverError: It cannot be loaded.
    """
    if int(_call("cuCtxGetCurrent")) == 0:
        raise UnsupportedError("this process has no CUDA context; load kernels in one made by TorchRuntime")
    try:
        return Function(_Module(cubin), name)
    except DriverError as error:
        if error.name in ("CUDA_ERROR_OUT_OF_MEMORY", "CUDA_ERROR_INVALID_VALUE"):
            raise ObjectiveFailure("resource_exceeded", f"{name} cannot be loaded: {error}") from error
        raise


def stream() -> int:
    """Torch's current stream, a CUDA graph being captured included."""
    import torch

    return int(torch.cuda.current_stream().cuda_stream)


@functools.cache
def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise UnsupportedError(
            f"kernels are launched through cuda-python, which is not there ({error}); install it with: "
            "pip install cuda-bindings"
        ) from error
    return driver


def _call(name: str, *arguments: Any) -> Any:
    result, *values = getattr(_driver(), name)(*arguments)
    if result != _driver().CUresult.CUDA_SUCCESS:
        raise _error(name, result)
    return values[0] if len(values) == 1 else tuple(values)


def _error(call: str, result: Any) -> DriverError:
    driver = _driver()
    _, name = driver.cuGetErrorName(result)
    _, text = driver.cuGetErrorString(result)
    return DriverError(call, (name or b"unknown").decode(), (text or b"unknown error").decode())


def _unload(driver: Any, handle: Any) -> None:
    # a context that is lost has nothing left to unload
    driver.cuModuleUnload(handle)
