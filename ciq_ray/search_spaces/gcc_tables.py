"""Which options of GCC and clang are worth a search, and which change what a program computes.

The names are checked against the compiler that is installed; what it does not have is left out. The
values of parameters are picked around GCC 12's and LLVM 14's defaults: some below, more above, since
most are limits that were set with code size in mind.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CLANG_CHANGES_RESULTS",
    "CLANG_EXPERIMENTAL",
    "CLANG_SWITCHED",
    "CLANG_VALUES",
    "GCC_CHANGES_RESULTS",
    "GCC_NOT_FOR_SPEED",
    "GCC_PARAMETERS",
    "GCC_SWITCHED",
    "GCC_TARGET_VALUES",
    "GCC_VALUED",
    "LEVELS",
    "LLVM_CHOICES",
    "LLVM_SWITCHED",
    "TARGET_VALUES",
]

LEVELS: Final = ("1", "2", "3", "s")
"""Base levels, as in ``-O2``. ``-Ofast`` is ``-O3 -ffast-math`` and a little more."""

TARGET_VALUES: Final[dict[str, tuple[str | int, ...]]] = {
    "-march": ("native",),
    "-mtune": ("native",),
    "-mprefer-vector-width": (128, 256, 512),
}
"""Options of the machine. ``-march=native`` comes with ``-ffp-contract=off`` in variants that keep
results, since a compiler that may use fused multiply-add instructions does, and rounds differently."""

GCC_SWITCHED: Final = (
    # loops
    "unroll-loops",
    "unroll-all-loops",
    "peel-loops",
    "split-loops",
    "unswitch-loops",
    "split-ivs-in-unroller",
    "variable-expansion-in-unroller",
    "tree-loop-vectorize",
    "tree-slp-vectorize",
    "tree-loop-distribution",
    "tree-loop-distribute-patterns",
    "tree-loop-if-convert",
    "tree-loop-im",
    "ivopts",
    "loop-interchange",
    "loop-unroll-and-jam",
    "version-loops-for-strides",
    "predictive-commoning",
    "prefetch-loop-arrays",
    "move-loop-invariants",
    "move-loop-stores",
    "modulo-sched",
    # calls
    "inline-functions",
    "inline-small-functions",
    "partial-inlining",
    "ipa-cp-clone",
    "ipa-pta",
    "ipa-ra",
    "ipa-sra",
    "omit-frame-pointer",
    "optimize-sibling-calls",
    # branches
    "if-conversion",
    "if-conversion2",
    "hoist-adjacent-loads",
    "jump-tables",
    "bit-tests",
    "thread-jumps",
    "split-paths",
    "crossjumping",
    "tracer",
    "reorder-blocks",
    "guess-branch-probability",
    # redundancy and memory
    "code-hoisting",
    "expensive-optimizations",
    "gcse",
    "gcse-after-reload",
    "gcse-las",
    "gcse-sm",
    "rerun-cse-after-loop",
    "store-merging",
    "tree-partial-pre",
    "tree-pre",
    "tree-reassoc",
    "tree-sink",
    "tree-slsr",
    "tree-ter",
    "tree-vrp",
    # registers and scheduling
    "ira-hoist-pressure",
    "ira-loop-pressure",
    "live-range-shrinkage",
    "rename-registers",
    "sched-pressure",
    "schedule-insns",
    "schedule-insns2",
    "web",
)
"""``-fNAME`` and ``-fno-NAME`` of the default variant."""

GCC_VALUED: Final[dict[str, tuple[str | int, ...]]] = {
    "-falign-functions": (16, 32, 64),
    "-falign-loops": (16, 32, 64),
    "-fira-algorithm": (),
    "-fira-region": (),
    "-freorder-blocks-algorithm": (),
    "-fvect-cost-model": (),
}
"""``-fNAME=VALUE`` of the default variant; no values means those that the compiler lists."""

GCC_TARGET_VALUES: Final[dict[str, tuple[int, ...]]] = {"-mbranch-cost": (1, 2, 3, 4, 5)}
"""Options of the machine that only GCC has."""

GCC_PARAMETERS: Final[dict[str, tuple[int, ...]]] = {
    "early-inlining-insns": (3, 6, 14, 28, 56),
    "gcse-unrestricted-cost": (0, 1, 3, 6),
    "inline-min-speedup": (5, 15, 30, 50),
    "inline-unit-growth": (20, 40, 80, 160),
    "ipa-cp-eval-threshold": (125, 250, 500, 1000),
    "iv-consider-all-candidates-bound": (20, 40, 80),
    "lim-expensive": (5, 10, 20, 40),
    "max-average-unrolled-insns": (40, 80, 160, 320),
    "max-completely-peel-times": (4, 8, 16, 32, 64),
    "max-completely-peeled-insns": (50, 100, 200, 400, 800),
    "max-inline-insns-auto": (5, 15, 30, 60, 120),
    "max-inline-insns-single": (35, 70, 200, 400, 800),
    "max-jump-thread-duplication-stmts": (5, 15, 30, 60),
    "max-peeled-insns": (50, 100, 200, 400),
    "max-rtl-if-conversion-insns": (3, 6, 10, 20, 40),
    "max-rtl-if-conversion-unpredictable-cost": (10, 20, 40, 80, 160),
    "max-tail-merge-comparisons": (2, 10, 50),
    "max-unroll-times": (2, 4, 8, 16, 32),
    "max-unrolled-insns": (50, 100, 200, 400, 800),
    "max-unswitch-insns": (25, 50, 100, 200),
    "max-variable-expansions-in-unroller": (1, 2, 4, 8),
    "min-insn-to-prefetch-ratio": (3, 9, 20),
    "predictable-branch-outcome": (0, 2, 5, 10),
    "prefetch-latency": (50, 100, 200, 400),
    "sched-pressure-algorithm": (1, 2),
    "simultaneous-prefetches": (3, 6, 12, 24),
    "tracer-max-code-growth": (50, 100, 200),
    "tree-reassoc-width": (1, 2, 4, 8),
    "unroll-jam-max-unroll": (2, 4, 8),
    "unroll-jam-min-percent": (0, 1, 5, 20),
    "vect-epilogues-nomask": (0, 1),
    "vect-max-version-for-alias-checks": (0, 5, 10, 20, 50),
    "vect-partial-vector-usage": (0, 1, 2),
}
"""``--param=NAME=VALUE`` of the default variant."""

GCC_CHANGES_RESULTS: Final = frozenset(
    {
        # how floating-point numbers are rounded, compared and trapped
        "-fassociative-math",
        "-fcx-fortran-rules",
        "-fcx-limited-range",
        "-fexcess-precision",
        "-ffast-math",
        "-ffinite-math-only",
        "-ffloat-store",
        "-ffp-contract",
        "-ffp-int-builtin-inexact",
        "-fmath-errno",
        "-freciprocal-math",
        "-frounding-math",
        "-fsignaling-nans",
        "-fsigned-zeros",
        "-fsingle-precision-constant",
        "-ftrapping-math",
        "-funsafe-math-optimizations",
        "--param=avoid-fma-max-bits",
        "--param=vect-induction-float",
        # what a program is trusted to do or not to do
        "-faggressive-loop-optimizations",
        "-fallocation-dce",
        "-fallow-store-data-races",
        "-fdelete-dead-exceptions",
        "-fdelete-null-pointer-checks",
        "-ffinite-loops",
        "-fipa-strict-aliasing",
        "-fisolate-erroneous-paths-attribute",
        "-fisolate-erroneous-paths-dereference",
        "-flifetime-dse",
        "-fprintf-return-value",
        "-fsched-spec-load-dangerous",
        "-fsemantic-interposition",
        "-fstack-reuse",
        "-fstrict-aliasing",
        "-fstrict-enums",
        "-fstrict-overflow",
        "-fstrict-volatile-bitfields",
        "-funconstrained-commons",
        "-fwrapv",
        "-fwrapv-pointer",
        "--param=allow-store-data-races",
    }
)
"""Options that are marked, on or off: with them a correct program may compute other numbers, or one
that breaks a rule of its language may do something else."""

GCC_NOT_FOR_SPEED: Final = (
    # binary interfaces, exceptions, debugging
    "-fasynchronous-unwind-tables",
    "-fexceptions",
    "-fhandle-exceptions",
    "-fkeep-gc-roots-live",
    "-fnon-call-exceptions",
    "-fopt-info",
    "-fpack-struct",
    "-fpcc-struct-return",
    "-freg-struct-return",
    "-frtti",
    "-fsave-optimization-record",
    "-fshort-",
    "-fthreadsafe-statics",
    "-funwind-tables",
    "-fvar-tracking",
    "-gstatement-frontiers",
    # checks, hardening, patching
    "-fharden-",
    "-flive-patching",
    "-fpatchable-function-entry",
    "-fstack-check",
    "-fstack-clash-protection",
    "-fstack-protector",
    "-ftrapv",
    "-ftrivial-auto-var-init",
    "-fzero-call-used-regs",
    # a profile, or a library to link with
    "-fbranch-probabilities",
    "-floop-parallelize-all",
    "-fprofile-",
    "-ftree-parallelize-loops",
    "-fvpt",
    # parameters of other things than the code that comes out
    "--param=analyzer-",
    "--param=asan-",
    "--param=constructive-interference-size",
    "--param=cxx-",
    "--param=destructive-interference-size",
    "--param=ggc-",
    "--param=graphite-allow-codegen-errors",
    "--param=hash-table-verification-limit",
    "--param=hwasan-",
    "--param=integer-share-limit",
    "--param=lazy-modules",
    "--param=lto-",
    "--param=max-debug-marker-count",
    "--param=max-vartrack-",
    "--param=min-nondebug-insn-uid",
    "--param=min-pagesize",
    "--param=openacc-",
    "--param=parloops-",
    "--param=profile-",
    "--param=ranger-debug",
    "--param=ssp-buffer-size",
    "--param=stack-clash-",
    "--param=tm-",
    "--param=tsan-",
    "--param=uninit-",
    "--param=use-after-scope-",
    "--param=use-canonical-types",
)
"""Beginnings of options that no variant has."""

CLANG_SWITCHED: Final = (
    "-finline-functions",
    "-fjump-tables",
    "-fomit-frame-pointer",
    "-foptimize-sibling-calls",
    "-freroll-loops",
    "-fslp-vectorize",
    "-funroll-loops",
    "-fvectorize",
)
"""``-fNAME`` and ``-fno-NAME`` of clang's default variant."""

CLANG_VALUES: Final[dict[str, tuple[str | int, ...]]] = {
    "-falign-functions": (16, 32, 64),
    "-falign-loops": (16, 32, 64),
}

CLANG_CHANGES_RESULTS: Final = (
    "-fapprox-func",
    "-fassociative-math",
    "-fdelete-null-pointer-checks",
    "-ffast-math",
    "-ffinite-loops",
    "-ffinite-math-only",
    "-fmath-errno",
    "-fmerge-all-constants",
    "-freciprocal-math",
    "-frounding-math",
    "-fsemantic-interposition",
    "-fsigned-zeros",
    "-fstrict-aliasing",
    "-fstrict-enums",
    "-fstrict-return",
    "-ftrapping-math",
    "-funsafe-math-optimizations",
    "-fwrapv",
)
"""Further switches of clang's full variant, all marked."""

LLVM_SWITCHED: Final = (
    "enable-cond-stores-vec",
    "enable-ext-tsp-block-placement",
    "enable-gvn-sink",
    "enable-interleaved-mem-accesses",
    "enable-load-pre",
    "enable-misched",
    "extra-vectorizer-passes",
    "interleave-small-loop-scalar-reduction",
    "prefer-inloop-reductions",
    "unroll-allow-partial",
    "unroll-allow-remainder",
    "unroll-runtime",
    "unroll-runtime-multi-exit",
)
"""``-mllvm -NAME`` and ``-mllvm -NAME=false`` of clang's default variant."""

CLANG_EXPERIMENTAL: Final = (
    "enable-dfa-jump-thread",
    "enable-gvn-hoist",
    "enable-loop-distribute",
    "enable-loop-flatten",
    "enable-loopinterchange",
    "enable-nontrivial-unswitch",
    "enable-unroll-and-jam",
)
"""Passes that LLVM keeps off because they are not finished: in clang's full variant."""

LLVM_CHOICES: Final[dict[str, tuple[int, ...]]] = {
    "force-vector-interleave": (1, 2, 4, 8),
    "force-vector-width": (1, 2, 4, 8, 16),
    "inline-threshold": (50, 100, 225, 500, 1000, 2500),
    "inlinehint-threshold": (100, 325, 650, 1300),
    "jump-threading-threshold": (3, 6, 12, 24),
    "licm-max-num-uses-traversed": (8, 32),
    "max-interleave-group-factor": (2, 4, 8),
    "memdep-block-scan-limit": (50, 100, 200, 500),
    "min-jump-table-entries": (2, 4, 8, 16),
    "phi-node-folding-threshold": (1, 2, 4, 8),
    "slp-max-reg-size": (128, 256, 512),
    "slp-threshold": (-10, -5, 0, 5, 10),
    "small-loop-cost": (10, 20, 40, 80),
    "tail-dup-placement-threshold": (2, 4, 8),
    "tail-dup-size": (2, 4, 8),
    "two-entry-phi-node-folding-threshold": (2, 4, 8),
    "unroll-full-max-count": (8, 16, 32, 64),
    "unroll-max-count": (2, 4, 8, 16),
    "unroll-max-upperbound": (4, 8, 16),
    "unroll-partial-threshold": (75, 150, 300, 600),
    "unroll-peel-max-count": (3, 7, 14),
    "unroll-threshold": (75, 150, 300, 600, 1200),
    "vectorizer-min-trip-count": (4, 8, 16, 64),
}
"""``-mllvm -NAME=VALUE`` of clang's default variant."""
