"""Which names of TensorRT the source uses, by following its objects through the source.

The library is an untyped module there, because no types fit all of its releases. What an expression may be is found
from the module on: `module.Builder(...)` gives a Builder, and what a release's methods and properties give, the release
says. Assignments, attributes of objects, arguments and results of the source's own functions are followed until nothing
new is found; the order of statements is not.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from tests.runtime.engines.tensorrt.releases import Release

Kinds: TypeAlias = "frozenset[str]"
"""What an expression may be: `module`, `class C`, `C` (an object of it), `[C]` (some of them), `-> C` (gives one)."""

Place: TypeAlias = "tuple[str, str]"
"""A class, "" for the module, and an attribute."""

Guards: TypeAlias = "frozenset[tuple[tuple[Place, ...], bool]]"
"""What is known where the source comes to: the library has all of these places, or, where False, it has not all."""

NOTHING: Kinds = frozenset()
ALWAYS: Guards = frozenset()
_PASSED_ON = {"list", "tuple", "sorted", "reversed", "iter", "next"}
_ENDINGS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


@dataclass(frozen=True, slots=True)
class Use:
    """A name that the source reads, sets, calls or asks for.

    Attributes:
        where: file and line.
        owner: class that has it, "" for the module.
        name: the attribute.
        arguments: what it is called with, `self` included; None where it is not called, or that is not to be seen.
        guards: what is known of the library there.
    """

    where: str
    owner: str
    name: str
    arguments: tuple[Kinds, ...] | None
    guards: Guards


@dataclass(eq=False)
class _Function:
    """A function, or a file's own statements."""

    path: Path
    owner: str
    body: list[ast.stmt]
    parameters: list[str] = field(default_factory=list)
    outer: _Function | None = None
    names: dict[str, Kinds] = field(default_factory=dict)
    tests: dict[str, ast.expr] = field(default_factory=dict)
    result: Kinds = NOTHING
    guards: Guards = ALWAYS

    def holder(self, name: str) -> _Function:
        """The function that has a name: this one, one around it, or this one for a new name."""
        scope: _Function | None = self
        while scope is not None:
            if name in scope.names:
                return scope
            scope = scope.outer
        return self


class UsedNames:
    """Follows the objects of a release through files.

    Args:
        paths: the source.
        release: says what its methods give.
        abilities: what attributes of `abilities` stand for in the source.
        words: other words of the source that say what the library can: attributes that are None where it cannot, and
            strings that something is compared with.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        release: Release,
        abilities: Mapping[str, tuple[Place, ...]],
        words: Mapping[str, tuple[Place, ...]],
    ) -> None:
        self._release = release
        self._abilities = abilities
        self._words = words
        self._functions: list[_Function] = []
        self._by_name: dict[str, list[_Function]] = defaultdict(list)
        self._attributes: dict[tuple[str, str], Kinds] = defaultdict(lambda: NOTHING)
        self._called: dict[_Function, list[Guards]] = {}
        self._found: set[Use] = set()
        self._lost: set[Use] = set()
        comprehensions = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
        self._follow: dict[Any, Callable[[_Function, Any, Guards], Kinds]] = {
            ast.Name: lambda function, node, _: function.holder(node.id).names.get(node.id, NOTHING),
            ast.Attribute: self._attribute,
            ast.Call: self._call,
            ast.Subscript: self._subscript,
            ast.IfExp: self._either,
            ast.BoolOp: self._in_turn,
            ast.NamedExpr: self._named_expression,
            comprehensions: self._comprehension,
        }
        for path in paths:
            tree = ast.parse(path.read_text())
            self._collect(_Function(path, "", tree.body), tree)
        known: object = None
        while (found := self._round()) != known:
            known = found

    def uses(self) -> list[Use]:
        """Every name of the library that the source has."""
        return sorted(self._found, key=lambda use: (use.where, use.owner, use.name, len(use.arguments or ())))

    def lost(self) -> list[Use]:
        """Attributes that are read from what could not be followed, and may or may not be the library's."""
        return sorted(self._lost, key=lambda use: use.where)

    def _collect(self, function: _Function, node: ast.AST, owner: str = "") -> None:
        if function not in self._functions:
            self._functions.append(function)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                every = [*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs]
                names = [argument.arg for argument in every]
                inner = _Function(function.path, owner, child.body, names[bool(owner) :], function)
                inner.names = dict.fromkeys(names, NOTHING)
                self._by_name[child.name].append(inner)
                self._collect(inner, child)
            else:
                self._collect(function, child, child.name if isinstance(child, ast.ClassDef) else owner)

    def _round(self) -> object:
        """Go through everything once; what is known then."""
        self._called = defaultdict(list)
        self._found.clear()
        self._lost.clear()
        for function in self._functions:
            self._block(function, function.body, function.guards)
        for function in self._functions:
            calls = self._called.get(function, [])
            around = function.outer.guards if function.outer is not None else ALWAYS
            function.guards = around | (frozenset.intersection(*calls) if calls else ALWAYS)
        known = [(dict(function.names), function.result, function.guards) for function in self._functions]
        return known, dict(self._attributes)

    def _block(self, function: _Function, statements: list[ast.stmt], guards: Guards) -> None:
        for statement in statements:
            if isinstance(statement, ast.If):
                self._kinds(function, statement.test, guards)
                self._block(function, statement.body, guards | self._known(function, statement.test, truth=True))
                otherwise = guards | self._known(function, statement.test, truth=False)
                self._block(function, statement.orelse, otherwise)
                if isinstance(statement.body[-1], _ENDINGS):
                    guards = otherwise
            elif not isinstance(statement, ast.FunctionDef):  # which has a turn of its own
                self._statement(function, statement, guards)
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                    for argument in statement.value.args:  # of what raises where it is not true
                        guards |= self._known(function, argument, truth=True)

    def _statement(self, function: _Function, statement: ast.stmt, guards: Guards) -> None:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                self._assign(function, target, statement.value, guards)
        elif isinstance(statement, ast.AnnAssign):
            if statement.value is not None:
                self._assign(function, statement.target, statement.value, guards)
        elif isinstance(statement, ast.Return) and statement.value is not None:
            function.result |= self._kinds(function, statement.value, guards)
        elif isinstance(statement, ast.For):
            self._bind(function, statement.target, _each(self._kinds(function, statement.iter, guards)), guards)
        else:
            for child in ast.iter_child_nodes(statement):
                self._child(function, child, guards)
        for part in ("body", "orelse", "finalbody"):
            self._block(function, getattr(statement, part, []), guards)
        for handler in getattr(statement, "handlers", []):
            self._block(function, handler.body, guards)

    def _child(self, function: _Function, child: ast.AST, guards: Guards) -> None:
        if isinstance(child, ast.expr):
            self._kinds(function, child, guards)
        elif isinstance(child, ast.withitem):
            kinds = self._kinds(function, child.context_expr, guards)
            if child.optional_vars is not None:
                self._bind(function, child.optional_vars, kinds, guards)

    def _assign(self, function: _Function, target: ast.expr, value: ast.expr, guards: Guards) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, other in zip(target.elts, value.elts, strict=False):
                self._assign(function, one, other, guards)
            return
        if isinstance(target, ast.Name) and isinstance(value, (ast.Attribute, ast.Call, ast.Compare)):
            function.tests[target.id] = value  # may be asked later
        self._bind(function, target, self._kinds(function, value, guards), guards)

    def _bind(self, function: _Function, target: ast.expr, kinds: Kinds, guards: Guards) -> None:
        if isinstance(target, ast.Name):
            scope = function.holder(target.id)
            scope.names[target.id] = scope.names.get(target.id, NOTHING) | kinds
        elif isinstance(target, ast.Attribute) and _name_of(target.value) == "self":
            self._attributes[function.owner, target.attr] |= kinds
        elif isinstance(target, (ast.Tuple, ast.List)):
            for one in target.elts:
                self._bind(function, one, _each(kinds), guards)
        else:
            self._kinds(function, target, guards)

    def _kinds(self, function: _Function, node: ast.expr, guards: Guards) -> Kinds:
        for kind, follow in self._follow.items():
            if isinstance(node, kind):
                return follow(function, node, guards)
        parts = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        found = NOTHING.union(*(self._kinds(function, part, guards) for part in parts))
        return frozenset(f"[{kind}]" for kind in found) if isinstance(node, (ast.Tuple, ast.List)) else NOTHING

    def _subscript(self, function: _Function, node: ast.Subscript, guards: Guards) -> Kinds:
        self._kinds(function, node.slice, guards)
        return _each(self._kinds(function, node.value, guards))

    def _either(self, function: _Function, node: ast.IfExp, guards: Guards) -> Kinds:
        self._kinds(function, node.test, guards)
        yes, no = (guards | self._known(function, node.test, truth=truth) for truth in (True, False))
        return self._kinds(function, node.body, yes) | self._kinds(function, node.orelse, no)

    def _in_turn(self, function: _Function, node: ast.BoolOp, guards: Guards) -> Kinds:
        found = NOTHING
        for part in node.values:
            found |= self._kinds(function, part, guards)
            guards |= self._known(function, part, truth=isinstance(node.op, ast.And))
        return found

    def _named_expression(self, function: _Function, node: ast.NamedExpr, guards: Guards) -> Kinds:
        found = self._kinds(function, node.value, guards)
        self._bind(function, node.target, found, guards)
        return found

    def _comprehension(
        self,
        function: _Function,
        node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp,
        guards: Guards,
    ) -> Kinds:
        for generator in node.generators:
            self._bind(function, generator.target, _each(self._kinds(function, generator.iter, guards)), guards)
            for test in generator.ifs:
                self._kinds(function, test, guards)
                guards |= self._known(function, test, truth=True)
        elements = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        found = [self._kinds(function, element, guards) for element in elements]
        return frozenset(f"[{kind}]" for kind in found[-1])

    def _attribute(
        self, function: _Function, node: ast.Attribute, guards: Guards, arguments: tuple[Kinds, ...] | None = None
    ) -> Kinds:
        kinds = self._kinds(function, node.value, guards)
        where = f"{function.path.name}:{node.lineno}"
        if kinds:
            return self._members(kinds, Use(where, "", node.attr, arguments, guards))
        if _name_of(node.value) == "self":
            return self._attributes[function.owner, node.attr]
        if node.attr == "module":
            return frozenset({"module"})
        if isinstance(node.ctx, ast.Load) and not isinstance(node.value, ast.Constant):
            self._lost.add(Use(where, "", node.attr, None, guards))
        return NOTHING

    def _members(self, kinds: Kinds, use: Use) -> Kinds:
        """Note the use of a name for each owner that it may have, and give what it may be."""
        found: set[str] = set()
        for kind, owner in _owners(kinds):
            itself = (frozenset({kind}),) if kind == owner else ()  # which an object passes
            passed = None if use.arguments is None else (*itself, *use.arguments)
            self._found.add(replace(use, owner=owner, arguments=passed))
            if not owner and use.name in self._release.classes:
                found.add(f"class {use.name}")
                continue
            member = self._release.member(owner, use.name)
            if member is not None and member.gives:
                is_value = kind != owner and member.gives == owner  # of an enumeration
                found |= {member.gives} if is_value else {member.gives, f"-> {member.gives}"}
        return frozenset(found)

    def _call(self, function: _Function, node: ast.Call, guards: Guards) -> Kinds:
        called = _name_of(node.func)
        given = [self._kinds(function, argument, guards) for argument in node.args]
        by_keyword = {word.arg: self._kinds(function, word.value, guards) for word in node.keywords}
        if called in {"getattr", "hasattr"} and len(node.args) > 1:
            return self._asked(function, node, given[0], guards)
        if called == "import_module":
            return frozenset({"module"})
        if called in _PASSED_ON and given:
            return given[0]
        counted = not any(isinstance(argument, ast.Starred) for argument in node.args) and None not in by_keyword
        if isinstance(node.func, ast.Attribute):
            arguments = (*given, *(NOTHING for _ in by_keyword)) if counted else None
            kinds = self._attribute(function, node.func, guards, arguments)
        else:
            kinds = self._kinds(function, node.func, guards)
        if kinds:
            return frozenset(kind.split()[-1] for kind in kinds if " " in kind)
        result: Kinds = NOTHING
        for each in self._by_name.get(called, []):
            for name, argument in [*zip(each.parameters, given, strict=False), *by_keyword.items()]:
                if name in each.names:
                    each.names[name] |= argument
            self._called[each].append(guards)
            result |= each.result
        return result

    def _asked(self, function: _Function, node: ast.Call, kinds: Kinds, guards: Guards) -> Kinds:
        """`hasattr` and `getattr`: a name that may be missing. One that is computed cannot be checked."""
        name = node.args[1]
        if not isinstance(name, ast.Constant) or not kinds:
            return NOTHING
        guards |= self._known(function, node, truth=True)
        return self._members(kinds, Use(f"{function.path.name}:{node.lineno}", "", str(name.value), None, guards))

    def _known(self, function: _Function, test: ast.expr, *, truth: bool) -> Guards:
        """What is known of the library where a test came out so."""
        if isinstance(test, ast.Name) and test.id in function.tests:
            return self._known(function, function.tests[test.id], truth=truth)
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return self._known(function, test.operand, truth=not truth)
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) is truth:
            return ALWAYS.union(*(self._known(function, part, truth=truth) for part in test.values))
        if isinstance(test, ast.Compare) and isinstance(test.ops[0], (ast.Is, ast.IsNot, ast.Eq, ast.NotEq)):
            truth = truth is isinstance(test.ops[0], (ast.IsNot, ast.Eq))
            said = test.comparators[0]
            if not isinstance(said, ast.Constant) or not isinstance(said.value, str):
                return self._known(function, test.left, truth=truth)
            return self._meant(self._words.get(said.value, ()), truth=truth)
        return ALWAYS.union(*(self._meant(places, truth=truth) for places in self._told(function, test)))

    def _told(self, function: _Function, test: ast.expr) -> list[tuple[Place, ...]]:
        """The places of the library that an expression is true for."""
        if isinstance(test, ast.Attribute) and _name_of(test.value) == "abilities":
            return [self._abilities.get(test.attr, ())]
        if isinstance(test, (ast.Attribute, ast.Name)):
            return [self._words.get(_name_of(test), ())]
        if isinstance(test, ast.Call) and _name_of(test.func) in {"hasattr", "getattr"} and len(test.args) > 1:
            owners = _owners(self._kinds(function, test.args[0], ALWAYS))
            name = test.args[1]
            if isinstance(name, ast.Constant):
                return [((owner, str(name.value)),) for _, owner in owners]
        return []

    @staticmethod
    def _meant(places: tuple[Place, ...], *, truth: bool) -> Guards:
        return frozenset({(places, truth)}) if places else ALWAYS


def _each(kinds: Kinds) -> Kinds:
    """What is in it."""
    return frozenset(kind[1:-1] for kind in kinds if kind.startswith("["))


def _owners(kinds: Kinds) -> list[tuple[str, str]]:
    """The kinds that have attributes, each with its class, "" for the module."""
    return [
        (kind, "" if kind == "module" else kind.removeprefix("class "))
        for kind in sorted(kinds)
        if not kind.startswith(("[", "->"))
    ]


def _name_of(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
