"""Which of TensorRT's names the adapter uses, read from its source: what the contract tests hold against the bindings.

What an expression is, is told by the last name in it (`plan.engine.num_layers`: of an engine). Which of the names a
flavour must have is told by the conditions on `capabilities` around the use: `if ....capabilities.plugins:`, `not`,
`and`, `else`, the rest of a block after a branch that returns, and the conditions of all calls of a private function.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# The last name of an expression, and its class in TensorRT. A "?": where the flavour has that class at all.
RECEIVERS = {
    "module": "module",
    "engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "runtime": "Runtime",
    "inspector": "EngineInspector",
    "verbosity": "ProfilingVerbosity?",
    "get_plugin_registry": "IPluginRegistry",
}
_BUILD = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
}
# Names that mean something else in other files.
OF_FILE = {
    "context": {"config": "IRuntimeConfig"},
    **dict.fromkeys(("plan_builder", "build_config", "toolchain"), _BUILD),
}

Guards = frozenset[tuple[str, bool]]


@dataclass(frozen=True)
class Use:
    """One use of a name. call: number of positional arguments and the keywords. guards: capabilities around it."""

    owner: str
    name: str
    where: str
    guards: Guards
    call: tuple[int, tuple[str, ...]] | None = None
    stored: bool = False

    def applies(self, capabilities: dict[str, bool]) -> bool:
        """Whether a flavour with these capabilities comes here."""
        return all(capabilities[name] is wanted for name, wanted in self.guards)


@dataclass(frozen=True)
class Override:
    """A public method of a subclass of one of TensorRT's classes. positional: how many arguments it takes."""

    base: str
    name: str
    positional: int
    where: str


@dataclass
class _File:
    """One source file while it is read. compared: (method of an engine, name of an enum's member, where)."""

    stem: str
    uses: list[Use] = field(default_factory=list)
    overrides: list[Override] = field(default_factory=list)
    compared: list[tuple[str, str, str]] = field(default_factory=list)
    calls: dict[str, list[Guards]] = field(default_factory=dict)
    others: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True)
class Adapter:
    """All uses; `others`: attributes of expressions that RECEIVERS does not know, with where they are."""

    uses: tuple[Use, ...]
    overrides: tuple[Override, ...]
    compared: tuple[tuple[str, str, str], ...]
    others: frozenset[tuple[str, str]]


def read_adapter(paths: Iterable[Path]) -> Adapter:
    """Read the adapter's files."""
    files = []
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        first = _File(path.stem)
        _block(first, tree.body, frozenset(), {})
        inherited = {name: frozenset.intersection(*found) for name, found in first.calls.items()}
        second = _File(path.stem)
        _block(second, tree.body, frozenset(), inherited)
        files.append(second)
    return Adapter(
        tuple(use for file in files for use in file.uses),
        tuple(item for file in files for item in file.overrides),
        tuple(item for file in files for item in file.compared),
        frozenset(item for file in files for item in file.others),
    )


def _block(file: _File, body: list[ast.stmt], guards: Guards, inherited: dict[str, Guards]) -> None:
    for statement in body:
        if isinstance(statement, ast.If):
            _expression(file, statement.test, guards)
            holds, fails = _conditions(statement.test)
            _block(file, statement.body, guards | holds, inherited)
            _block(file, statement.orelse, guards | fails, inherited)
            if isinstance(statement.body[-1], ast.Return | ast.Raise | ast.Continue):
                guards |= fails
            continue
        inner = guards
        if isinstance(statement, ast.FunctionDef):
            inner = inherited.get(statement.name, frozenset()) if statement.name.startswith("_") else frozenset()
        if isinstance(statement, ast.ClassDef):
            _overrides(file, statement)
        _children(file, statement, inner, inherited)


def _overrides(file: _File, node: ast.ClassDef) -> None:
    """What `class Some(module.ISome)` defines, but for what begins with an underscore."""
    for base in node.bases:
        if isinstance(base, ast.Attribute) and RECEIVERS.get(_last(base.value)) == "module":
            file.overrides += [
                Override(base.attr, part.name, len(part.args.args) - 1, f"{file.stem}.py:{part.lineno}")
                for part in node.body
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_")
            ]


def _children(file: _File, node: ast.AST, guards: Guards, inherited: dict[str, Guards]) -> None:
    """The blocks in a statement that is no If, and its expressions."""
    for _, value in ast.iter_fields(node):
        items = value if isinstance(value, list) else [value]
        if items and all(isinstance(item, ast.stmt) for item in items):
            _block(file, items, guards, inherited)
            continue
        for item in items:
            if isinstance(item, ast.expr):
                _expression(file, item, guards)
            elif isinstance(item, ast.AST):  # handlers of try, items of with, arguments
                _children(file, item, guards, inherited)


def _conditions(test: ast.expr) -> tuple[Guards, Guards]:
    """What is known of capabilities where the test holds, and where it fails."""
    none: Guards = frozenset()
    if isinstance(test, ast.Attribute) and _last(test.value) == "capabilities":
        return frozenset({(test.attr, True)}), frozenset({(test.attr, False)})
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        holds, fails = _conditions(test.operand)
        return fails, holds
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return none.union(*(_conditions(part)[0] for part in test.values)), none
    if isinstance(test, ast.BoolOp):
        return none, none.union(*(_conditions(part)[1] for part in test.values))
    return none, none


def _expression(file: _File, node: ast.AST, guards: Guards) -> None:
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        for part in node.values:
            _expression(file, part, guards)
            guards |= _conditions(part)[0]
        return
    if isinstance(node, ast.IfExp):
        holds, fails = _conditions(node.test)
        _expression(file, node.test, guards)
        _expression(file, node.body, guards | holds)
        _expression(file, node.orelse, guards | fails)
        return
    if isinstance(node, ast.Call):
        name = _last(node.func)
        if name.startswith("_"):
            file.calls.setdefault(name, []).append(guards)
        if isinstance(node.func, ast.Attribute):
            keywords = tuple(str(keyword.arg) for keyword in node.keywords)
            _attribute(file, node.func, guards, (len(node.args), keywords))
            _expression(file, node.func.value, guards)
            for part in (*node.args, *(keyword.value for keyword in node.keywords)):
                _expression(file, part, guards)
            return
    if isinstance(node, ast.Compare):
        _comparison(file, node)
    if isinstance(node, ast.Attribute):
        _attribute(file, node, guards, None)
    for child in ast.iter_child_nodes(node):
        _expression(file, child, guards)


def _attribute(file: _File, node: ast.Attribute, guards: Guards, call: tuple[int, tuple[str, ...]] | None) -> None:
    where = f"{file.stem}.py:{node.lineno}"
    known = RECEIVERS | OF_FILE.get(file.stem, {})
    owner = known.get(_last(node.value))
    if owner is None and isinstance(node.value, ast.Attribute) and known.get(_last(node.value.value)) == "module":
        owner = node.value.attr  # module.LayerInformationFormat.JSON
    if node.attr.startswith("__"):
        return
    if owner is None:
        file.others.add((node.attr, where))
    else:
        file.uses.append(Use(owner, node.attr, where, guards, call, isinstance(node.ctx, ast.Store)))


def _comparison(file: _File, node: ast.Compare) -> None:
    """engine.method(...).name == "MEMBER"."""
    left, right = node.left, node.comparators[0]
    if (
        isinstance(left, ast.Attribute)
        and left.attr == "name"
        and isinstance(left.value, ast.Call)
        and isinstance(left.value.func, ast.Attribute)
        and RECEIVERS.get(_last(left.value.func.value)) == "ICudaEngine"
        and isinstance(right, ast.Constant)
    ):
        file.compared.append((left.value.func.attr, str(right.value), f"{file.stem}.py:{node.lineno}"))


def _last(node: ast.expr) -> str:
    """The last name of an expression: engine for `plan.engine`, get_name for `x.get_name()`."""
    if isinstance(node, ast.Call):
        return _last(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
