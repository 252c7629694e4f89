"""What compilers print about their options, copied from real ones."""

from ciq_ray.search_spaces.gcc_help import Setting, docs_of, gcc_settings, llvm_docs

# gcc 12.2 -O2 -Q --help=optimizers, some lines of it
OPTIMIZERS = """\
The following options control optimizations:
  -O<number>                  \t\t
  -Ofast                      \t\t
  -faggressive-loop-optimizations \t[enabled]
  -falign-functions           \t\t[disabled]
  -falign-functions=          \t\t
  -fassociative-math          \t\t[disabled]
  -fexceptions                \t\t[available in Modula-2]
  -ffold-simple-inlines       \t\t[available in C++, ObjC++]
  -fhandle-exceptions         \t\t-fexceptions
  -flifetime-dse=<0,2>        \t\t2
  -fpack-struct=<number>      \t\t
  -fprefetch-loop-arrays      \t\t
  -fvect-cost-model=[unlimited|dynamic|cheap|very-cheap] \t[default]

"""
# gcc 12.2 -O2 -Q --help=params
PARAMETERS = """\
The following options control parameters:
  --param=align-loop-iterations= \t4
  --param=align-threshold=<1,65536> \t\t100
  --param=evrp-mode=          \t\tranger
  --param=lazy-modules=       \t\t[available in C++]
  --param=parloops-schedule=[static|dynamic|guided|auto|runtime] \tstatic
  --param=vect-max-peeling-for-alignment=<0,64> \t-1
"""
# gcc 12.2 --help=optimizers
DOCS = """\
The following options control optimizations:
  -falign-functions           Align the start of functions.
  -falign-functions=          This option lacks documentation.
  -faggressive-loop-optimizations Aggressively optimize loops using language
                              constraints.
  -fexcess-precision=[fast|standard|16] Specify handling of excess floating-
                              point precision.
  -ffast-math                 This option lacks documentation.
"""
# clang 14.0 --help-hidden
CLANG = """\
OVERVIEW: clang LLVM compiler

USAGE: clang [options] file...

OPTIONS:
  -falign-loops=<N>       N must be a power of two. Align loops to the boundary
  -faltivec               Enable AltiVec vector initializer syntax
  -mprefer-vector-width=<value>
                          Specifies preferred vector width for auto-vectorization. Defaults to 'none'
"""
# clang 14.0 -mllvm -help-hidden
LLVM = """\
USAGE: clang (LLVM option parsing) [options]

OPTIONS:

  -h                                  - Alias for --help
  --inline-threshold=<int>            - Control the amount of inlining to perform (default = 225)
  --unroll-runtime                    - Unroll loops with run-time trip counts
  --enable-pre                        -
    =all                              -   nothing of its own
"""


def test_optimizers() -> None:
    found = {(setting.flag, setting.takes_value): setting for setting in gcc_settings(OPTIMIZERS)}
    assert found["-faggressive-loop-optimizations", False].current == "[enabled]"
    assert found["-fprefetch-loop-arrays", False] == Setting("-fprefetch-loop-arrays", False, (), None, "")
    assert found["-flifetime-dse", True] == Setting("-flifetime-dse", True, (), (0, 2), "2")
    models = ("unlimited", "dynamic", "cheap", "very-cheap")
    assert found["-fvect-cost-model", True] == Setting("-fvect-cost-model", True, models, None, "[default]")
    assert ("-falign-functions", False) in found
    assert ("-falign-functions", True) in found
    assert not {flag for flag, _ in found} & {"-fexceptions", "-ffold-simple-inlines"}


def test_parameters() -> None:
    found = {setting.flag: setting for setting in gcc_settings(PARAMETERS)}
    assert found["--param=align-loop-iterations"].number == 4
    assert found["--param=align-loop-iterations"].bounds is None
    assert found["--param=align-threshold"].bounds == (1, 65536)
    assert found["--param=vect-max-peeling-for-alignment"].number == -1
    assert found["--param=evrp-mode"].number is None
    assert found["--param=parloops-schedule"].choices[:2] == ("static", "dynamic")
    assert "--param=lazy-modules" not in found
    assert all(setting.takes_value for setting in found.values())


def test_parameters_as_gcc_9_prints_them() -> None:
    text = """\
The following options control parameters:
  predictable-branch-outcome            default 2 minimum 0 maximum 50
  max-unroll-times                      default 8 minimum 0 maximum 0
"""
    assert gcc_settings(text) == [
        Setting("--param=predictable-branch-outcome", True, (), (0, 50), "2"),
        Setting("--param=max-unroll-times", True, (), None, "8"),
    ]


def test_other_text_is_no_option() -> None:
    assert gcc_settings("gcc: error: unrecognized argument\n\n  known: a b\n") == []
    assert docs_of("nothing\n    at all\n") == {}


def test_docs() -> None:
    assert docs_of(DOCS) == {
        "-falign-functions": "Align the start of functions.",
        "-faggressive-loop-optimizations": "Aggressively optimize loops using language constraints.",
        "-fexcess-precision": "Specify handling of excess floating-point precision.",
    }
    assert docs_of(CLANG) == {
        "-falign-loops": "N must be a power of two. Align loops to the boundary",
        "-faltivec": "Enable AltiVec vector initializer syntax",
        "-mprefer-vector-width": (
            "Specifies preferred vector width for auto-vectorization. Defaults to 'none'"
        ),
    }


def test_llvm_docs() -> None:
    assert llvm_docs(LLVM) == {
        "h": "Alias for --help",
        "inline-threshold": "Control the amount of inlining to perform (default = 225)",
        "unroll-runtime": "Unroll loops with run-time trip counts",
    }
