"""Every error Gristmill raises on purpose, in one tree. Each says what, where, and what to do; only the CLI catches.

GristmillError
├── RecipeError               a recipe cannot be read or does not make sense (file, line, nearest right name)
├── InputError                an input cannot be found, opened or recognised
├── InputChanged              an input is not the one the plan was made for
├── ResourceMissing           a model, list or tokenizer file is absent or has the wrong sha256
├── OutputError               the output folder cannot be used
│   ├── CommitConflict        two attempts of one task gave different bytes
│   └── VerifyFailed          what is stored is not what its manifest says
├── TaskFailed                a task could not be done within its attempts
├── ClusterError              a Ray cluster cannot be reached or may not be used, or has no such job
│   └── PreflightFailed       a node is not like the driver
├── QuarantineBudgetExceeded  more documents were quarantined than the run allows
└── NoSuchDocument            no document has this id or URL
"""

from __future__ import annotations


class GristmillError(Exception):
    """Root of the tree; its text is written for the person at the terminal."""


class RecipeError(GristmillError):
    """A recipe cannot be read or does not make sense."""


class InputError(GristmillError):
    """An input cannot be found, opened or recognised."""


class InputChanged(GristmillError):
    """An input is not the one the plan was made for."""


class ResourceMissing(GristmillError):
    """A model, list or tokenizer file is absent or has the wrong sha256."""


class OutputError(GristmillError):
    """The output folder cannot be used."""


class CommitConflict(OutputError):
    """Two attempts of one task gave different bytes."""


class VerifyFailed(OutputError):
    """What is stored is not what its manifest says."""


class TaskFailed(GristmillError):
    """A task could not be done within its attempts."""


class ClusterError(GristmillError):
    """A Ray cluster cannot be reached or may not be used, or has no such job."""


class PreflightFailed(ClusterError):
    """A node is not like the driver."""


class QuarantineBudgetExceeded(GristmillError):
    """More documents were quarantined than the run allows."""


class SourceEmptied(GristmillError):
    """Deduplication would take nearly all of a domain or of a folder of input."""


class NoSuchDocument(GristmillError):
    """No document has this id or URL."""
