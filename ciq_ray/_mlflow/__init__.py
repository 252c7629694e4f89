"""Searches in MLflow: one core for `MLflowTracker` and `ciq_ray.tune.MLflowCallback`.

| module | |
|---|---|
| `uris` | tracking URIs, with and without credentials |
| `names` | names and values that MLflow takes |
| `limits` | requests that give up soon, for our own thread only |
| `store` | one record into MLflow, as often as it takes and never twice |
| `spool` | records that MLflow could not take, in a file |
| `writer` | the thread that writes, and what it does while the server is away |
| `stale` | runs whose process was killed |
| `summary` | what the parent run says of a search |
| `objective` | what an objective logs by itself, in the process that runs it |
| `context` | MLflow's plugin that tells which search such a run belongs to |

None of it imports MLflow before it is used.
"""
