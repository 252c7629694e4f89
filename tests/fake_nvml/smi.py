"""The part of ``nvidia-smi`` that is used, on the fake devices; run as a program.

Permissions are as in life: what is refused for lack of them is granted when ``sudo`` runs it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import state as fake

MESSAGES = {
    fake.NO_PERMISSION: "The current user does not have permission to change clocks for GPU {}.\n"
    "Terminating early due to previous errors.",
    fake.NOT_SUPPORTED: "Setting locked clocks is not supported for GPU {}.",
    fake.INVALID_ARGUMENT: "Invalid value for GPU {}.",
}


def main(words: list[str]) -> int:
    log = os.environ.get("CIQ_FAKE_SMI_LOG")
    if log:
        with open(log, "a") as file:
            print(*words, file=file)
    state = fake.attach(Path(os.environ["CIQ_FAKE_NVML"]))
    gpus = [state.gpus[index] for index in range(state.count)]
    if "-i" in words:
        at = words.index("-i")
        gpus = [gpu for gpu in gpus if gpu.uuid.decode() == words[at + 1]]
        words = words[:at] + words[at + 2 :]
    if words == ["base-clocks"]:
        for gpu in gpus:
            print(f"GPU 00: {gpu.name.decode()}\n    SM  {gpu.base_mhz}MHz")
        return 0
    return max((change(gpu, words) for gpu in gpus), default=6)


def change(gpu: fake.Gpu, words: list[str]) -> int:
    option, numbers = words[0], [int(number) for number in ",".join(words[1:]).split(",") if number]
    error = {"-lgc": gpu.core_error, "-lmc": gpu.memory_error, "-pl": gpu.power_error}.get(
        option, gpu.reset_error
    )
    if error and not (error == fake.NO_PERMISSION and os.environ.get("CIQ_FAKE_ROOT")):
        print(MESSAGES[error].format(gpu.pci.decode()))
        return error
    if option == "-pl":
        gpu.limit_mw = numbers[0] * 1000
        note(gpu, "power", [gpu.limit_mw] * 2)
    else:
        core = option.endswith("gc")
        locked = gpu.locked_sm if core else gpu.locked_mem
        locked[:] = numbers or [0, 0]
        note(gpu, "core" if core else "memory", list(locked))
    print("All done.")
    return 0


def note(gpu: fake.Gpu, what: str, numbers: list[int]) -> None:
    gpu.log = gpu.log + f"{what} {numbers[0]} {numbers[1]}\n".encode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
