"""The server with each of its access checks taken away or weakened: one at a time, while it runs.

``python mutation.py STATE run …`` is ``python -m neuro.server run …`` with every check rewritten to
look into the file STATE, which says which of them is off (see ``Switch``). So one server shows all
of them, and tells which checks a request has come by.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import mmap
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

MODULES = (
    "neuro.server.http.routes",
    "neuro.server.access.tokens",
    "neuro.server.access.grants",
    "neuro.server.access.scopes",
    "neuro.server.access.routes",
    "neuro.server.access.permission_routes",
    "neuro.server.access.service_accounts",
    "neuro.server.access.service_account_routes",
    "neuro.server.access.sharing",
    "neuro.server.jobs.routes",
    "neuro.server.jobs.listing",
    "neuro.server.jobs.reader",
    "neuro.server.jobs.service",
    "neuro.server.jobs.saving",
    "neuro.server.jobs.plan",
    "neuro.server.jobs.specification",
    "neuro.server.jobs.events",
    "neuro.server.jobs.job_secrets",
    "neuro.server.secrets.routes",
    "neuro.server.secrets.service",
    "neuro.server.storage.routes",
    "neuro.server.storage.access",
    "neuro.server.bakes.guard",
    "neuro.server.projects.guard",
    "neuro.server.projects.routes",
    "neuro.server.projects.service",
    "neuro.server.projects.tables",
    "neuro.server.bakes.service",
    "neuro.server.bakes.attempts.routes",
    "neuro.server.bakes.attempts.service",
    "neuro.server.bakes.cache.service",
    "neuro.server.bakes.files.service",
    "neuro.server.bakes.images.service",
    "neuro.server.bakes.tasks.service",
    "neuro.server.schedules.service",
    "neuro.server.supervision.routes",
    "neuro.server.installation.preset_routes",
    "neuro.server.registry.routes",
    "neuro.server.registry.service",
    "neuro.server.registry.token_routes",
    "neuro.server.registry.upload_routes",
    "neuro.server.registry.upkeep_routes",
)
SOURCES = Path(__file__).parents[3] / "src"
# Statements that raise where the caller may not.
CHECKS = {
    "require",
    "require_person",
    "_require_own",
    "ask_for_cluster",
    "held_for",
    "_check_may_share",
}
# Calls that find a thing for a caller, who is among their arguments.
LOOK_UPS = {
    "project",
    "bake",
    "own_bake",
    "own_attempt",
    "attempt",
    "check_may_start",
    "find",
    "authorize",
    "view",
}
# First what is made of the other.
WEAKER = {"Action.WRITE": "Action.READ", "Action.MANAGE": "Action.WRITE"}
_CALLERS = {"caller", "call.identity", "identity"}
_REFUSALS = {"NotPermitted", "not_own", "NotAuthenticated"}
_HOOK = "__mutant__"


@dataclass(frozen=True)
class Site:
    """A check, and what is done to it."""

    number: int
    module: str
    line: int
    what: str
    text: str

    @property
    def key(self) -> str:
        """What it is called, however the lines around it change."""
        return f"{self.module.removeprefix('neuro.server.')}: {self.text}"

    def __str__(self) -> str:
        path = self.module.replace(".", "/")
        return f"src/{path}.py:{self.line}: {self.what}: {self.text}"


class _Rewriter(ast.NodeTransformer):
    """Puts a question before every check of a module."""

    def __init__(self, module: str, source: str, first: int) -> None:
        self.sites: list[Site] = []
        self._lines = source.splitlines()
        self._module = module
        self._first = first
        self._function = ""

    def _site(self, node: ast.AST, what: str, *parts: ast.expr, on: str = "is_off") -> ast.expr:
        number = self._first + len(self.sites)
        line: int = node.lineno  # type: ignore[attr-defined]
        text = self._lines[line - 1].strip()
        self.sites.append(Site(number, self._module, line, what, text))
        hook = ast.Attribute(ast.Name(_HOOK, ast.Load()), on, ast.Load())
        return ast.Call(hook, [ast.Constant(number), *parts], [])

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._in_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._in_function(node)

    def _in_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        before, self._function = self._function, node.name
        node.decorator_list = [self._declaration(each) for each in node.decorator_list]
        node.body = [self.visit(each) for each in node.body]
        self._function = before
        return node

    def _declaration(self, decorator: ast.expr) -> ast.expr:
        """A route's: its need is asked of anybody, or less is needed."""
        for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
            if keyword.arg == "needs":
                need = keyword.value
                weaker = ast.parse(_weaker_text(ast.unparse(need)), mode="eval").body
                keyword.value = self._site(need, "need not asked", need, on="need")
                if ast.unparse(weaker) != ast.unparse(need):
                    keyword.value = self._site(
                        need, "need weakened", keyword.value, weaker, on="weaker"
                    )
        return decorator

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        is_check = isinstance(call, ast.Call) and _name(call.func) in CHECKS
        asked = self._site(node, "deleted") if is_check else None
        self.generic_visit(node)
        if asked is None:
            return node
        return ast.If(ast.UnaryOp(ast.Not(), asked), [node], [])

    def visit_If(self, node: ast.If) -> ast.AST:
        if self._refuses(node):
            asked = self._site(node.test, "never so")
            self.generic_visit(node)
            node.test = ast.BoolOp(ast.And(), [ast.UnaryOp(ast.Not(), asked), node.test])
            return node
        self.generic_visit(node)
        return node

    def _refuses(self, node: ast.If) -> bool:
        first = node.body[0]
        if isinstance(first, ast.Return) and self._function == "look_up":
            return "digest" in ast.unparse(node.test)
        if not isinstance(first, ast.Raise) or not isinstance(first.exc, ast.Call):
            return False
        return _name(first.exc.func) in _REFUSALS

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if self._function == "_identify" and ast.unparse(node).endswith(
            "(NOT_LOGGED_IN[route.proofs[0]])"
        ):
            return ast.If(ast.UnaryOp(ast.Not(), self._site(node, "deleted")), [node], [])
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = _name(node.func)
        if name == "Need":
            return node
        if name == "scope":
            return self._site(node, "shows everything", node, on="everything")
        if name == "condition":
            asked = self._site(node, "no condition")
            return ast.IfExp(asked, ast.Constant(None), node)
        if name == "shows":
            return ast.BoolOp(ast.Or(), [self._site(node, "shows everything"), node])
        if self._function == "condition" and name == "and_":
            node.args[-1] = self._site(node.args[-1], "no condition", node.args[-1], on="true")
            return node
        if self._function == "condition" and name == "in_":
            return self._site(node, "no condition", node, on="true")
        if name == "covering":
            return node  # The widest comes first, whatever is the least.
        for at, caller in enumerate(node.args if name in LOOK_UPS else ()):
            text = ast.unparse(caller)
            if text in _CALLERS:
                node.args[at] = self._site(node, f"{text} may do all", caller, on="anybody")
        self.generic_visit(node)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        text = ast.unparse(node)
        if self._function and text in WEAKER:
            weaker = ast.parse(WEAKER[text], mode="eval").body
            return self._site(node, f"weakened to {WEAKER[text]}", node, weaker, on="other")
        self.generic_visit(node)
        return node


def _weaker_text(text: str) -> str:
    for action, weaker in WEAKER.items():
        text = text.replace(action, weaker)
    return text


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


@cache
def rewritten() -> tuple[dict[str, ast.Module], tuple[Site, ...]]:
    """The modules with a question before every check, and all checks."""
    trees: dict[str, ast.Module] = {}
    sites: list[Site] = []
    for module in MODULES:
        source = (SOURCES / (module.replace(".", "/") + ".py")).read_text()
        rewriter = _Rewriter(module, source, len(sites) + 1)
        tree = rewriter.visit(ast.parse(source))
        trees[module] = ast.fix_missing_locations(tree)
        sites += rewriter.sites
    return trees, tuple(sites)


class Switch:
    """Which check is off, and which were come by: bytes of a file that both sides map."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(4 + 1 + len(rewritten()[1])))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def turn_off(self, number: int) -> None:
        """Take one check away; none for 0."""
        self._memory[:4] = number.to_bytes(4, "little")

    def is_off(self, number: int) -> bool:
        """Whether a check is off, which is asked wherever a request comes by."""
        self._memory[4 + number] = 1
        return self._memory[:4] == number.to_bytes(4, "little")

    def passed(self) -> list[int]:
        """The checks that were come by since this was asked last."""
        seen = self._memory[4:]
        self._memory[4:] = bytes(len(seen))
        return [number for number, byte in enumerate(seen) if byte]


class Mutant:
    """What rewritten checks call."""

    def __init__(self, switch: Switch) -> None:
        self.is_off = switch.is_off

    def anybody(self, number: int, identity: Any) -> Any:
        """The caller, or the same with all rights there are."""
        if not self.is_off(number):
            return identity
        from neuro.domain.permissions import admin_permissions
        from neuro.server.access.grants import Grants

        return replace(identity, grants=Grants.of(admin_permissions("default")))

    def need(self, number: int, need: Any) -> Any:
        """A route's need, asked of somebody with all rights there are."""
        ask: Callable[[Any], Awaitable[Any]] = need.ask

        async def asked(call: Any) -> Any:
            return await ask(
                replace(call, identity_or_none=self.anybody(number, call.identity_or_none))
            )

        return replace(need, ask=asked)

    def weaker(self, number: int, need: Any, weaker: Any) -> Any:
        """A route's need, or another."""

        async def asked(call: Any) -> Any:
            return await (weaker if self.is_off(number) else need).ask(call)

        return replace(need, ask=asked)

    def other(self, number: int, usual: Any, other: Any) -> Any:
        """One value, or another."""
        return other if self.is_off(number) else usual

    def everything(self, number: int, visible: Any) -> Any:
        """What is visible, or all there is."""
        return replace(visible, everything=True) if self.is_off(number) else visible

    def true(self, number: int, condition: Any) -> Any:
        """A condition of SQL, or one that always holds."""
        from sqlalchemy import true

        return true() if self.is_off(number) else condition


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, mutant: Mutant) -> None:
        super().__init__(name, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        return compile(rewritten()[0][fullname], self.path, "exec")

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__[_HOOK] = self._mutant
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in MODULES:
            return None
        source = str(SOURCES / (name.replace(".", "/") + ".py"))
        return importlib.util.spec_from_file_location(
            name, source, loader=_Loader(name, source, self._mutant)
        )


def main() -> int:
    """Run the server."""
    sys.meta_path.insert(0, _Finder(Mutant(Switch(Path(sys.argv.pop(1))))))
    from neuro.server.__main__ import main as serve

    return serve()


if __name__ == "__main__":
    sys.exit(main())
