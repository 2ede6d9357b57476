"""The functions that look at files or at the platform, and those that belong to tasks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from neuro.flow.evaluate.boundary import OUTSIDE, is_inside, leads_out
from neuro.flow.evaluate.contexts import JobRecord, VolumeRecord
from neuro.flow.expressions.evaluator import EvaluationError, ExpressionScope
from neuro.flow.expressions.functions import SIGNATURES, STANDARD, Function
from neuro.flow.expressions.values import URI

if TYPE_CHECKING:
    from neuro.flow.evaluate.environment import LiveEffects

    Tags = Callable[[str, str | None], tuple[str, ...]]

# Functions of a task's outcome, which live jobs do not have.
OF_TASKS = ("success", "failure", "always")
# Messages about functions out of their place, of the check of names and of evaluation.
IN_TASKS_ONLY = "{}() is only available inside a task definition"
IN_LIVE_ONLY = "{}() is only available in a live workflow"
NO_DEPENDENCY = "{}() got an argument that is not a dependency: {!r}"
ADD_TO_NEEDS = "Write it into `needs:`, without a level."
INSTEAD_OF: Mapping[str, str] = {
    "upload": "Upload before the bake, with `neuro-flow upload`.",
    "inspect_job": "Tasks read how others ended in `needs`.",
}

_CHUNK = 1 << 20
_NO_HASH = "0" * 64


def live_functions(
    workspace: Path, effects: LiveEffects | None, tags_of: Tags | None, *, read_files: bool = True
) -> Mapping[str, Function]:
    """Return what may be called in a live workflow.

    Without effects or tags, the functions that need them say where they may be called. A check
    reads no files for their hashes.
    """

    def hash_files(_: ExpressionScope, patterns: Sequence[object]) -> str:
        return hash_below(workspace, patterns, workspace, read=read_files)

    def hash_files_relative(_: ExpressionScope, arguments: Sequence[object]) -> str:
        root, *patterns = arguments
        if not isinstance(root, str | Path | PurePosixPath):
            raise EvaluationError(
                "hash_files_relative() takes a folder first, such as flow.action_path"
            )
        if isinstance(root, str) and leads_out(root):
            raise EvaluationError(OUTSIDE.format(root))
        folder = workspace / root
        # The folder of an action of a repository is not in the workspace, nor is what it hashes.
        boundary = workspace if is_inside(folder, workspace) else folder
        return hash_below(folder, patterns, boundary, read=read_files)

    def upload(_: ExpressionScope, arguments: Sequence[object]) -> VolumeRecord:
        (volume,) = arguments
        if not isinstance(volume, VolumeRecord):
            raise EvaluationError("upload() takes a volume, such as volumes.code")
        if volume.local is None:
            raise EvaluationError(
                f"Volume '{volume.id}' has no local folder to upload", None, "Give it a `local:`."
            )
        if effects is None:
            raise EvaluationError("upload() is only available inside a job")
        effects.upload(volume)
        return volume

    def inspect_job(_: ExpressionScope, arguments: Sequence[object]) -> JobRecord:
        job_id, *rest = arguments
        if effects is None or tags_of is None:
            raise EvaluationError(
                "inspect_job() is only available inside a job of the live workflow itself"
            )
        suffix = rest[0] if rest else None
        if not isinstance(job_id, str) or not isinstance(suffix, str | None):
            raise EvaluationError("inspect_job() takes a job's id and a suffix, both strings")
        job = effects.inspect_job(tags_of(job_id, suffix))
        if job is None:
            shown = f"{job_id} {suffix}" if suffix else job_id
            raise EvaluationError(f"Job {shown} is not running", None, "Start it first.")
        return JobRecord.of(job)

    own = {
        "hash_files": (hash_files, "SHA-256 over the workspace's files that match."),
        "hash_files_relative": (hash_files_relative, "SHA-256 over matching files of a folder."),
        "upload": (upload, "Upload a volume's local folder; gives the volume."),
        "parse_volume": (_parse_volume, "Read a volume reference `URI:PATH[:ro|:rw]`."),
        "inspect_job": (inspect_job, "The newest active job, as the platform knows it."),
        **{name: (_refuse(name), "Only in tasks of a batch.") for name in OF_TASKS},
    }
    return {
        **STANDARD,
        **{name: Function(name, *SIGNATURES[name], call, doc) for name, (call, doc) in own.items()},
    }


def _refuse(name: str) -> Callable[[ExpressionScope, Sequence[object]], object]:
    def call(_: ExpressionScope, __: Sequence[object]) -> object:
        raise EvaluationError(IN_TASKS_ONLY.format(name))

    return call


def hash_below(root: Path, patterns: Sequence[object], boundary: Path, *, read: bool = True) -> str:
    """Hash the files that match: each pattern's in their order, path then content.

    Raises EvaluationError for a pattern, or a link, that leads out of the boundary. Without
    ``read``, only the patterns themselves are looked at.
    """
    from hashlib import sha256

    digest = sha256()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise EvaluationError("Patterns of files are strings, such as '**/*.py'")
        if not Path(os.path.normpath(root / pattern)).is_relative_to(os.path.normpath(boundary)):
            raise EvaluationError(OUTSIDE.format(pattern))
        if not read:
            continue
        try:
            found = sorted(root.glob(pattern))
        except (ValueError, NotImplementedError) as error:
            raise EvaluationError(f"'{pattern}' is not a file pattern: {error}") from None
        for path in found:
            if not path.is_file():
                continue
            if not is_inside(path, boundary):
                raise EvaluationError(
                    f"'{pattern}' matches {path.relative_to(root)}, which is behind a link that "
                    "leads out of the workspace"
                )
            digest.update(path.relative_to(root).as_posix().encode())
            try:
                with path.open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
            except OSError as error:
                raise EvaluationError(f"Cannot read {path}: {error.strerror}") from None
    return digest.hexdigest() if read else _NO_HASH


def _parse_volume(_: ExpressionScope, arguments: Sequence[object]) -> VolumeRecord:
    (reference,) = arguments
    if not isinstance(reference, str):
        raise EvaluationError("parse_volume() takes a string, such as 'storage:data:/data'")
    text, read_only = reference, False
    for mode in (":ro", ":rw"):
        if text.endswith(mode):
            text, read_only = text.removesuffix(mode), mode == ":ro"
    remote, colon, mount = text.rpartition(":")
    if not colon or ":" not in remote or not mount.startswith("/"):
        raise EvaluationError(
            f"'{reference}' is not a volume reference, write URI:PATH[:ro|:rw]", None
        )
    return VolumeRecord("<volume>", URI(remote), PurePosixPath(mount), read_only)
