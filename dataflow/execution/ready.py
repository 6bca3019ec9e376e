"""Ready: what a worker loads while it starts, so that its first result does not wait for it."""

from __future__ import annotations

import dataflow.execution.in_worker  # noqa: F401
from dataflow.documents import adapter
from dataflow.storage.manifest import Manifest

adapter(Manifest)  # most of it are parts of pydantic that are imported when they are wanted first
