"""A peer-to-peer mesh that runs background jobs."""

# Light on purpose: every worker process starts with this import.
from edgenode.core.errors import InvalidJob
from edgenode.core.types import Backoff
from edgenode.parameters import Bounds
from edgenode.task import (
    Cancel,
    Fail,
    JobContext,
    Recorder,
    Retry,
    TaskLoadError,
    Unserialisable,
    load_tasks,
    run_task,
    task,
)

__version__ = "0.1.0"
__all__ = [
    "Backoff",
    "Bounds",
    "Cancel",
    "Fail",
    "InvalidJob",
    "JobContext",
    "Recorder",
    "Retry",
    "TaskLoadError",
    "Unserialisable",
    "load_tasks",
    "run_task",
    "task",
]
