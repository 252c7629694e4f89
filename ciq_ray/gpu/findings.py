"""The GPUs' part of ``ciq doctor``."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ciq_ray.doctor import ABSENT, OK, WARNING, Finding
from ciq_ray.errors import CiqError
from ciq_ray.gpu.devices import LOST_ADVICE, Device, devices, lost_cards
from ciq_ray.gpu.evidence import SPOILING, reason_names
from ciq_ray.gpu.ledger import ledgers
from ciq_ray.gpu.nvml import NvmlError
from ciq_ray.gpu.packages import CUDA_BINDINGS, TORCH, TRITON, Package
from ciq_ray.gpu.preflight import Preflight, ledger_text, preflight
from ciq_ray.utils.gpu import ctk_supports_compileiq

__all__ = ["gpu_findings"]


def gpu_findings() -> list[Finding]:
    """What there is to say of drivers, GPUs and what was left behind on them; changes nothing."""
    found = _devices()
    visible = any(finding.name == "GPU 0" for finding in found)
    # who has a GPU and no Triton may tune CUDA C++
    packages = [_package(TORCH, visible), _package(CUDA_BINDINGS, visible), _package(TRITON, False)]
    return [*found, *_left_behind(), _toolkit(), *packages]


def _devices() -> list[Finding]:
    try:
        found = devices()
    except CiqError as error:
        driver = ""
        with contextlib.suppress(OSError):
            driver = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
        if not driver and isinstance(error.__cause__, NvmlError) and error.__cause__.kind == "absent":
            return [
                Finding("GPU", ABSENT, "no NVIDIA driver", "none is needed to tune compilers and CPU code")
            ]
        return [Finding("GPU", WARNING, driver or "none that can be used", str(error))]
    findings = [finding for i, device in enumerate(found) for finding in _device(f"GPU {i}", device)]
    return findings + [Finding("GPU lost", WARNING, text, LOST_ADVICE) for text in lost_cards()]


def _device(name: str, device: Device) -> list[Finding]:
    try:
        seen = preflight(device)
    except NvmlError as error:
        return [Finding(name, WARNING, f"{device.name} ({device.uuid}): {error}", LOST_ADVICE)]
    what, driver, now, clocks, power, *_ = seen.lines()
    return [
        Finding(name, OK, what),
        Finding(f"{name} driver", OK, driver),
        Finding(f"{name} clocks", OK, clocks),
        Finding(f"{name} power", OK, power),
        _now(f"{name} now", now, seen),
        *_users(f"{name} users", seen),
        *_locking(f"{name} locking", seen),
    ]


def _now(name: str, text: str, seen: Preflight) -> Finding:
    spoiling = reason_names(seen.now.reasons & SPOILING)
    if not spoiling:
        return Finding(name, OK, text)
    advice = f"{spoiling}: what is timed now does not count; look after power and cooling"
    return Finding(name, WARNING, text, advice)


def _users(name: str, seen: Preflight) -> list[Finding]:
    advice = "what others run on it spoils timings: wait for it, or choose another GPU"
    findings = [Finding(name, WARNING, str(process), advice) for process in seen.processes]
    if seen.timing:
        findings.append(Finding(name, WARNING, f"timing on it: {seen.timing}", "other searches wait for it"))
    return findings


def _locking(name: str, seen: Preflight) -> list[Finding]:
    findings = []
    if seen.persistence is False:
        advice = "sudo nvidia-smi -pm 1, or every start on the GPU takes longer and clocks may be forgotten"
        findings.append(Finding(name, WARNING, "persistence mode is off", advice))
    if seen.cannot_lock:
        advice = "timings vary more while clocks are not locked; docs/gpu.md says how to allow it"
        findings.append(Finding(name, ABSENT, f"clocks cannot be set: {seen.cannot_lock}", advice))
    else:
        findings.append(Finding(name, OK, "clocks can be set, as far as can be seen"))
    return findings


def _left_behind() -> list[Finding]:
    findings = []
    for ledger in ledgers():
        text = f"{ledger.uuid}: {ledger_text(ledger)}"
        stale = ledger.left_behind and not ledger.rebooted
        findings.append(
            Finding("GPU clocks", WARNING if stale else OK, text, "ciq gpu release" if stale else "")
        )
    return findings


def _package(package: Package, needed: bool) -> Finding:
    if package.installed:
        return Finding(package.name, OK, package.version or "there")
    return Finding(
        package.name, WARNING if needed else ABSENT, f"not installed; for {package.purpose}", package.advice
    )


def _toolkit() -> Finding:
    if ctk_supports_compileiq():
        return Finding("CUDA toolkit", OK, "13.3 or later: its compilers take --apply-controls")
    return Finding(
        "CUDA toolkit",
        ABSENT,
        "none of 13.3 or later, whose compilers take --apply-controls",
        "pip install 'ciq-ray[ptxas]', if you tune with control files",
    )
