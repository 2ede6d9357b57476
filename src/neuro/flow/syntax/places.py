"""Where keys belong that were written in another place: hints for unknown keys."""

from typing import Final

from neuro.domain.problems import closest
from neuro.flow.syntax.keys import keys_of
from neuro.flow.syntax.tree import (
    ActionFile,
    ActionJob,
    BatchFile,
    Call,
    Defaults,
    ExecUnit,
    Image,
    LiveDefaults,
    LiveFile,
    LiveJob,
    LiveUnit,
    ProjectFile,
    Strategy,
    Task,
    TaskCall,
    TreeNode,
    Volume,
)

COMMANDS: Final = ("cmd", "bash", "python")

_FILES: Final = (LiveFile, BatchFile, ProjectFile, ActionFile)
# Words of other tools, or of the documentation of the past.
_OTHERS: Final = {
    "command": "cmd",
    "run": "bash",
    "script": "bash",
    "environment": "env",
    "timeout": "life_span",
    "depends_on": "needs",
    "if": "enable",
    "with": "args",
    "uses": "action",
    "description": "title",
    "working_directory": "workdir",
    "path": "mount",
    "build_context": "context",
}


def words_of(node: type[TreeNode]) -> tuple[str, ...]:
    """All keys that a mapping may have, bash and python included."""
    words = tuple(keys_of(node))
    return (*words, *COMMANDS[1:]) if "cmd" in words else words


def hint(word: str, node: type[TreeNode]) -> str:
    """What to do about a key that does not belong in a mapping."""
    key = meant(word, node)
    if key is not None:
        return f"Did you mean '{key}'?"
    belongs = _where_it_belongs(_plain(word), node)
    return belongs or f"Allowed here: {', '.join(sorted(words_of(node)))}."


def meant(word: str, node: type[TreeNode]) -> str | None:
    """The key of a mapping that somebody has written otherwise, as far as one can guess."""
    known, plain = words_of(node), _plain(word)
    if plain in known:
        return plain
    if _where_it_belongs(plain, node) is not None:
        return None
    other = _OTHERS.get(plain)
    return other if other in known else closest(plain, known)


def _plain(word: str) -> str:
    return word.strip().replace("-", "_").lower()


def _where_it_belongs(word: str, node: type[TreeNode]) -> str | None:
    if issubclass(node, TaskCall) and word in ("retry", "timeout"):
        return f"'{word}' is for tasks that run a container: write it into those of the action."
    if issubclass(node, Call | TaskCall) and word in words_of(LiveUnit):
        return "An action or a module brings this itself: pass it what it needs with args."
    if issubclass(node, ActionJob):
        if word in ("action", "module", "args"):
            return "The job of an action cannot call another one: nested actions are forbidden."
        if word == "params":
            return "An action takes inputs instead of params."
    if issubclass(node, _FILES):
        return _in_file(word, node)
    if word in ("matrix", "max_parallel", "fail_fast") and "strategy" in keys_of(node):
        return f"'{word}' belongs below strategy:."
    if issubclass(node, ExecUnit):
        return _in_unit(word, node)
    if issubclass(node, LiveDefaults) and word in keys_of(Defaults):
        return f"'{word}' is for batches: a live file's defaults do not have it."
    if issubclass(node, LiveDefaults) and word in words_of(LiveUnit):
        return f"'{word}' belongs in a job or a task, not into the defaults."
    if issubclass(node, Image | Volume) and word in words_of(ExecUnit):
        return f"'{word}' belongs in a job or a task."
    if issubclass(node, Strategy) and word in ("include", "exclude"):
        return f"'{word}' belongs below matrix:."
    return None


def _in_file(word: str, node: type[TreeNode]) -> str | None:
    if issubclass(node, LiveFile):
        if word in ("tasks", "task"):
            return "Tasks belong in a batch file, with kind: batch. A live file has jobs."
        if word == "params":
            return "In a live file, params belong in a job."
    if issubclass(node, BatchFile) and word in ("jobs", "job"):
        return "Jobs belong in a live file, with kind: live. A batch file has tasks."
    if issubclass(node, ProjectFile) and word in ("jobs", "tasks", "kind"):
        return "A project file has no jobs or tasks: those are in live.yml and in batch files."
    if issubclass(node, ActionFile) and word in ("jobs", "defaults", "volumes", "mixins", "params"):
        return "An action does not have it: what it needs comes through its inputs."
    if not issubclass(node, ActionFile) and word in keys_of(Defaults):
        return f"'{word}' belongs below defaults:, or into a job or a task."
    return None


def _in_unit(word: str, node: type[TreeNode]) -> str | None:
    if word in keys_of(Task) and not issubclass(node, Task):
        return f"'{word}' is for the tasks of a batch."
    if word in keys_of(LiveJob):
        return f"'{word}' is for the jobs of a live file."
    if word in keys_of(Volume) or word in ("volume", "mounts"):
        return "Volumes have a section of their own, and volumes: here lists references to them."
    if word in keys_of(Image):
        return f"'{word}' belongs to an image, below images: of the file."
    return None
