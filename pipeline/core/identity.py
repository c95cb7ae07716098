"""Which code the numbers of a trial depend on, found from what its spec names, and the digest of that code.

Nobody keeps a list. From `ROOTS` and the classes of the spec every definition at the level of a module is followed that
a reached one mentions, through imports, in the syntax trees of the package as it was imported. What counts:

- A definition counts as its syntax tree. Comments, docstrings and annotations do not.
- What only refuses does not count: the words of a `raise`, calls of `require`, `assert`. What is stored passed them.
- A variant, a class that a spec names by its field `name: Literal[...]` (clipping, optimiser, attention, forcing, rules
  for initial weights), counts where the spec has one, or reached code makes one. A union or `isinstance` makes none,
  and the branch of an `isinstance` that no variant of the spec enters does not count.
- An entry of a `Registry` counts where the spec names it; in a package, entries of the same name in its modules, too.
- What follows `if "x" in spec.measures`, for a field with a list of names, counts where the spec has that name.
- A method counts with its class; one whose name begins with `_`, where reached code mentions it.
- Statements that run on import count for every imported module, those that change a name of it with that name.

- Of a user's own (a network of one's own, a class of a spec defined elsewhere) everything counts that is reached by the
  same rules in modules outside the folders of installed packages (`config/own_code`); an installed one, its version.

In doubt more counts, and a trial trains once more than it had to. Whatever a dataset's arrays come from does not count,
for their digest stands in the trial's identity. Nor do torch and Python, whose versions are columns.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipeline.config.own_code import imports_of, own_source, version_of
from pipeline.errors import PipelineError

T = TypeVar("T")
Registry = dict[str, T]
"""The annotation of a mapping from names that a spec may say to what they stand for."""

PACKAGE = "pipeline"
ROOTS = (
    "pipeline.core.training.loop.run_trial",
    "pipeline.results.frames.long_frame",
    "pipeline.results.frames.trials_frame",
)
"""What makes the rows of a trial's tables."""

OPAQUE = ("pipeline.results.schema", "pipeline.core.identity")
"""Modules that are not followed: tables are checked against their schema whenever they are read."""

NUM_DIGITS = 16

Key = tuple[str, str]
"""A module, and a definition in it; `IMPORT` is what runs when it is imported, "" the module itself."""
IMPORT = "<import>"


def code_digest(spec: Any) -> str:
    """Return 16 hexadecimal digits of the code that the numbers of this spec depend on, as this process imported it.

    Raises:
        PipelineError: If a class of the spec has no source file, as one that was made in a notebook.
    """
    return _IMPORTED.digest(spec)


class _Content(NamedTuple):
    """What a definition consists of, and what it mentions: definitions, attributes, and variants that it makes."""

    text: str
    mentions: frozenset[Key]
    attributes: frozenset[str]
    made: frozenset[Key]


class _Named(NamedTuple):
    """What a spec says: its classes, its words, and the words in each field that is a list."""

    classes: frozenset[Key]
    words: frozenset[str]
    lists: frozenset[tuple[str, frozenset[str]]]


class Code:
    """The source text of a package, read once, and the digests of what specs need of it.

    Args:
        folder: The package.
    """

    def __init__(self, folder: Path) -> None:
        self._sources = {}
        for path in sorted(folder.rglob("*.py")):
            parts = (PACKAGE, *path.relative_to(folder).with_suffix("").parts)
            is_package = parts[-1] == "__init__"
            self._sources[".".join(parts[:-1] if is_package else parts)] = (path.read_bytes(), is_package)
        self._modules: dict[str, _Module] = {}
        self._versions: dict[str, str] = {}
        self._contents: dict[tuple[Key, _Named | None], _Content] = {}
        self._digests: dict[_Named, str] = {}

    def digest(self, spec: Any) -> str:
        """Return 16 hexadecimal digits of the code that the numbers of this spec depend on.

        Raises:
            PipelineError: If a class of the spec has no source file.
        """
        named = self._named(spec)
        if named not in self._digests:
            lines = [f"{'.'.join(key)} {text}" for key, text in sorted(self._parts(named).items())]
            self._digests[named] = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:NUM_DIGITS]
        return self._digests[named]

    def parts(self, spec: Any) -> frozenset[str]:
        """Return the dotted names of all definitions that count for this spec."""
        return frozenset(".".join(key) for key in self._parts(self._named(spec)))

    def _named(self, spec: Any) -> _Named:
        classes: set[Key] = set()
        words: set[str] = set()
        lists: dict[str, set[str]] = {}

        def visit(value: Any, field: str) -> None:
            if dataclasses.is_dataclass(value):
                classes.add((type(value).__module__, type(value).__qualname__))
                for inner in dataclasses.fields(value):
                    visit(part := getattr(value, inner.name), inner.name)
                    if inner.metadata.get("code"):  # `package.module:name`
                        classes.add(tuple(part.split(":")))
                        words.update(inner.metadata.get("names", ()))
            elif isinstance(value, Mapping):
                for key, part in value.items():
                    visit(key, field)
                    visit(part, field)
            elif isinstance(value, tuple):
                if all(isinstance(part, str) for part in value):
                    lists.setdefault(field, set()).update(value)
                for part in value:
                    visit(part, field)
            elif isinstance(value, str):
                words.add(value)

        visit(spec, "")
        for name, _ in classes:
            if name not in self._sources and not self._has_own(name):  # else what was imported counts
                self._versions[name] = _version(name)
        return _Named(
            frozenset(classes), frozenset(words), frozenset((name, frozenset(found)) for name, found in lists.items())
        )

    def _parts(self, named: _Named) -> dict[Key, str]:
        """Return the text of everything that counts; anew where reached code makes variants that were not named."""
        while True:
            texts, made = self._reach(named)
            if made <= named.classes:
                return texts
            named = named._replace(classes=named.classes | made)

    def _reach(self, named: _Named) -> tuple[dict[Key, str], frozenset[Key]]:
        waiting = [key for root in ROOTS for key in self.resolve(*root.rpartition(".")[::2])] + sorted(named.classes)
        texts: dict[Key, str] = {}
        seen: set[Key] = set()
        made: set[Key] = set()
        mentioned: set[str] = set()
        private: dict[str, list[Key]] = {}
        touched: set[str] = set()
        while waiting:
            module_name, name = key = waiting.pop()
            if module_name in self._versions:
                texts[key] = self._versions[module_name]
            module = self._module(module_name)
            if key in seen or module is None:
                continue
            if module_name not in touched:
                touched.add(module_name)
                waiting += [(module_name, IMPORT), *((other, "") for other in sorted(module.imported))]
            if not name:
                continue
            if name in module.registries:
                waiting += self._entries(module, name, named.words)
                continue
            content = self._content(key, module, named)
            if content.text:
                texts[key] = content.text
            seen.add(key)
            made |= content.made
            waiting += content.mentions
            for method in module.private_methods(name):
                if method in mentioned:
                    waiting.append((module_name, f"{name}.{method}"))
                private.setdefault(method, []).append((module_name, f"{name}.{method}"))
            for attribute in content.attributes - mentioned:
                mentioned.add(attribute)
                waiting += private.get(attribute, ())
        return texts, frozenset(made)

    def _entries(self, registry: _Module, name: str, words: frozenset[str]) -> list[Key]:
        """Return what counts of a registry: the entries that the words name, all where they name none, and the rest.

        The rest is what changes the mapping besides, and what runs as its modules are imported.
        """
        holders = [registry]
        if registry.is_package:
            inside = [other for other in self._sources if other.rpartition(".")[0] == registry.name]
            holders += [found for other in inside if (found := self._module(other)) is not None]
        every = [(holder.name, name, word) for holder in holders for word in holder.entries.get(name, ())]
        chosen = [each for each in every if each[2] in words] or every
        rest = [(h.name, f"{name}[]" if name in h.entries else name) for h in holders if name in h.definitions]
        touched = [(holder.name, IMPORT) for holder in holders]
        return [*((holder, f"{name}[{word}]") for holder, name, word in chosen), *rest, *touched]

    def look_for(self, module: _Module, name: str) -> None:
        """Read the source of what a module of a user's own imports, where it is a user's own, too."""
        if module.name.partition(".")[0] != PACKAGE:
            self._has_own(name)

    def _has_own(self, name: str) -> bool:
        """Return whether a module is known, or one of a user's own, whose source is then read once."""
        if name not in self._sources and name.partition(".")[0] != PACKAGE and (path := own_source(name)) is not None:
            self._sources[name] = (path.read_bytes(), path.name == "__init__.py")
        return name in self._sources

    def _module(self, name: str) -> _Module | None:
        """Return a module of the package, or of a user's own; None for any other, and for those not followed."""
        if name not in self._sources or name in OPAQUE:
            return None
        if name not in self._modules:
            text, is_package = self._sources[name]
            self._modules[name] = module = _Module(name, ast.parse(text), is_package)
            for other in module.imported:
                self.look_for(module, other)
        return self._modules[name]

    def resolve(self, module_name: str, name: str) -> list[Key]:
        """Return where `name`, seen in a module, is defined; (module, "") for a module, nothing for what is elsewhere.

        A name that is imported where it is also defined has both.
        """
        if f"{module_name}.{name}" in self._sources and self._sources[module_name][1]:
            return [(f"{module_name}.{name}", "")]
        module = self._module(module_name)
        if module is None:
            return []
        found = [(module_name, name)] if name in module.definitions else []
        for source, attribute in module.imports.get(name, ()):
            if not attribute:
                found += [(source, "")] if source in self._sources else []
            elif source in self._sources:
                found += self.resolve(source, attribute)
        return found

    def _content(self, key: Key, module: _Module, named: _Named) -> _Content:
        named = named._replace(words=frozenset())
        for cached in ((key, None), (key, named)):
            if cached in self._contents:
                return self._contents[cached]
        reader = _Reader(self, module, named)
        text = reader.text(module.statements(key[1]))
        content = _Content(
            text=hashlib.sha256(text.encode()).hexdigest() if text else "",
            mentions=frozenset(reader.mentions),
            attributes=frozenset(reader.attributes),
            made=frozenset(reader.made),
        )
        self._contents[key, named if reader.depends else None] = content
        return content

    def is_variant(self, key: Key) -> bool:
        """Return whether a definition is a class that specs name."""
        module = self._module(key[0])
        return module is not None and key[1] in module.variants

    def members(self, key: Key) -> set[Key]:
        """Return the classes of a union, by name; the definition itself where it is none."""
        module = self._module(key[0])
        if module is None or key[1] not in module.unions:
            return {key}
        names = [node.id for node in ast.walk(module.definitions[key[1]][0].value) if isinstance(node, ast.Name)]  # type: ignore[attr-defined]
        return {member for name in names for found in self.resolve(key[0], name) for member in self.members(found)}


class _Module:
    """The definitions of a module, what it imports, and what runs when it is imported.

    Attributes:
        definitions: The statements that bind or change each name.
        imports: By name, the modules that it comes from and its name there, "" for the module itself.
        imported: Modules that are imported with this one.
        effects: Statements that run on import and change no name of the module.
        entries: Of each registry, and of each other mapping from constant texts, the values.
    """

    def __init__(self, name: str, tree: ast.Module, is_package: bool) -> None:
        self.name, self.is_package = name, is_package
        self.definitions: dict[str, list[ast.AST]] = {}
        self.imports: dict[str, list[Key]] = {}
        self.imported: set[str] = set()
        self.effects: list[ast.AST] = []
        self.registries: set[str] = set()
        self.entries: dict[str, dict[str, ast.expr]] = {}
        for statement in tree.body:
            self._add(statement)
        firsts = {name: statements[0] for name, statements in self.definitions.items()}
        self.variants = {name for name, first in firsts.items() if isinstance(first, ast.ClassDef) and _has_name(first)}
        self.unions = {name for name, first in firsts.items() if isinstance(first, ast.Assign) and _is_union(first)}

    def _add(self, statement: ast.stmt) -> None:
        for node in [statement] if isinstance(statement, _DEFINING) else ast.walk(statement):
            for name, source in imports_of(node, self.name, self.is_package):
                self.imports.setdefault(name, []).append(source)
                self.imported.update((source[0], ".".join(source)))
        if isinstance(statement, ast.Import | ast.ImportFrom) or _is_for_types_only(statement):
            return
        if isinstance(statement, _DEFINING):
            self.definitions.setdefault(statement.name, []).append(statement)
            return
        if (display := _display(statement)) is not None:
            self.entries[display[0]] = display[1]
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.annotation, ast.Subscript):
            of, target = statement.annotation.value, statement.target
            if isinstance(of, ast.Name) and of.id == "Registry" and isinstance(target, ast.Name):
                self.registries.add(target.id)
        bound, changed = _bound(statement)
        for name in bound - {"_"} | changed & self.definitions.keys():
            self.definitions.setdefault(name, []).append(statement)
        if isinstance(statement, _COMPOUND) or "_" in bound or not (bound | changed) <= self.definitions.keys():
            self.effects.append(statement)

    def statements(self, name: str) -> list[ast.AST]:
        """Return the syntax trees of a definition, of an entry `NAME[word]`, of `Class._method`, or of `IMPORT`."""
        if name == IMPORT:
            return self.effects
        if name.endswith("[]"):
            return [part for part in self.definitions[name[:-2]] if _display(part) is None]
        if name.endswith("]"):
            registry, _, word = name[:-1].partition("[")
            return [self.entries[registry][word]]
        owner, _, method = name.partition(".")
        private = self.private_methods(owner)
        if method:
            return [private[method]]
        if private:
            whole = self.definitions[owner][0]
            rest = copy.copy(whole)
            rest.body = [part for part in whole.body if part not in private.values()]  # type: ignore[attr-defined]
            return [rest, *self.definitions[owner][1:]]
        return self.definitions[owner]

    def private_methods(self, name: str) -> dict[str, ast.AST]:
        """Return the methods of a class that only code which mentions them can call; none where it is derived.

        A base outside the package may call anything.
        """
        first = self.definitions[name][0] if name in self.definitions else None
        if not isinstance(first, ast.ClassDef) or first.bases:
            return {}
        methods = [part for part in first.body if isinstance(part, ast.FunctionDef)]
        return {m.name: m for m in methods if m.name.startswith("_") and not m.name.startswith("__")}


_DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_COMPOUND = (ast.If, ast.For, ast.While, ast.With, ast.Try)
_TYPES = {"annotation", "returns"}
"""Fields of a syntax tree in which classes are mentioned that a value may be of."""
_NOTES = {"type_comment", "type_params", "kind"}
"""Fields that change no number, or are not in every Python."""


class _Reader:
    """Reads a definition once: writes down what counts of it as text, and notes what is mentioned.

    Attributes:
        mentions: Definitions that are mentioned.
        attributes: Every `x` of an expression `a.x`.
        made: Variants that are mentioned where they could be made.
        depends: Whether anything was left out because the spec does not name it.
    """

    def __init__(self, code: Code, module: _Module, named: _Named) -> None:
        self.code, self.module, self.named = code, module, named
        self.lists = dict(named.lists)
        self.mentions: set[Key] = set()
        self.attributes: set[str] = set()
        self.made: set[Key] = set()
        self.depends = False

    def text(self, node: Any, *, makes: bool = True) -> str:
        """Return a syntax tree as text that is the same in every Python; "" for what does not count.

        Args:
            node: The tree, or a part of one.
            makes: Whether a class that is mentioned in it could be made there, which it cannot in a union or a type.
        """
        if isinstance(node, list):
            reached = node[: next((i for i, part in enumerate(node, 1) if self._leaves(part)), None)]
            return ",".join(filter(None, (self.text(part, makes=makes) for part in reached)))
        if not isinstance(node, ast.AST):
            return repr(node)
        if isinstance(node, ast.Expr) and (isinstance(node.value, ast.Constant) or _called(node.value) == "require"):
            return ""
        if isinstance(node, ast.Assert):
            return ""
        if isinstance(node, ast.Raise):
            return "Raise()"
        if isinstance(node, ast.If | ast.IfExp) and (truth := self._truth(node.test)) is not None:
            return self.text(node.body if truth else node.orelse, makes=makes)
        self._note(node, makes=makes)
        makes = makes and not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr))
        compares = _called(node) in {"isinstance", "issubclass"}
        parts = []
        for field in node._fields:
            value = getattr(node, field, None)
            if value is None or value == [] or isinstance(value, ast.expr_context):
                continue
            if field in _TYPES:
                self.text(value, makes=False)
            elif field not in _NOTES:
                parts.append(f"{field}={self.text(value, makes=makes and not (compares and field == 'args'))}")
        return f"{type(node).__name__}({','.join(parts)})"

    def _leaves(self, node: Any) -> bool:
        """Return whether a statement is `if ...: return` under a test that what the spec names always passes."""
        return isinstance(node, ast.If) and isinstance(node.body[-1], ast.Return) and self._truth(node.test) is True

    def _truth(self, test: ast.expr) -> bool | None:
        """Return what a test of what the spec names comes to; None for any other."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            truth = self._truth(test.operand)
            return None if truth is None else not truth
        if isinstance(test, ast.BoolOp):
            ends = isinstance(test.op, ast.Or)
            truths = [self._truth(value) for value in test.values]
            return ends if ends in truths else None if None in truths else not ends
        if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.In | ast.NotIn) and len(test.ops) == 1:
            words = self._listed(test.comparators[0])
            if words is not None and isinstance(test.left, ast.Constant):
                self.depends = True
                return (test.left.value in words) == isinstance(test.ops[0], ast.In)
        if isinstance(test, ast.Call) and _called(test) == "isinstance":
            kinds = self._kinds(test.args[1])
            if kinds and all(self.code.is_variant(kind) for kind in kinds):
                self.depends = True
                return None if self.named.classes & kinds else False
        return None

    def _listed(self, node: ast.expr) -> frozenset[str] | None:
        """Return the names in a spec's list, of `spec.measures`."""
        return self.lists.get(node.attr) if isinstance(node, ast.Attribute) else None

    def _kinds(self, node: ast.expr) -> set[Key]:
        """Return the classes of an `isinstance`; none where one of them is not of the package."""
        if isinstance(node, ast.BinOp | ast.Tuple):
            parts = [node.left, node.right] if isinstance(node, ast.BinOp) else node.elts
            kinds = [self._kinds(part) for part in parts]
            return set().union(*kinds) if all(kinds) else set()
        found = self.code.resolve(self.module.name, node.id) if isinstance(node, ast.Name) else []
        return {kind for key in found for kind in self.code.members(key)}

    def _note(self, node: ast.AST, *, makes: bool) -> None:
        """Note what a node itself mentions; a variant counts where it could be made."""
        if isinstance(node, ast.Attribute):
            self.attributes.add(node.attr)
        keys = self._targets(node) if isinstance(node, ast.Attribute | ast.Name) else []
        for _, source in imports_of(node, self.module.name, self.module.is_package):
            self.code.look_for(self.module, source[0])
            keys = [*keys, *(self.code.resolve(*source) if source[1] else [source])]
        for key in keys:
            members = self.code.members(key)
            variants = {member for member in members if self.code.is_variant(member)}
            self.mentions |= members - variants
            if makes and key in variants:
                self.made.add(key)

    def _targets(self, node: ast.expr) -> list[Key]:
        """Return what `name` or `module.name` stands for."""
        if isinstance(node, ast.Name):
            return self.code.resolve(self.module.name, node.id)
        if not isinstance(node, ast.Attribute):
            return []
        return [
            key
            for module, name in self._targets(node.value)
            if not name
            for key in self.code.resolve(module, node.attr)
        ]


def _called(node: ast.AST) -> str:
    """Return the name of the function that is called, "" where none is."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _is_for_types_only(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING")


def _bound(statement: ast.stmt) -> tuple[set[str], set[str]]:
    """Return the names that a statement binds, and those whose objects it changes; of a bare text neither."""
    bound = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store | ast.Del)}
    inner = {n.name for n in ast.walk(statement) if isinstance(n, _DEFINING)}
    stored = [n for n in ast.walk(statement) if isinstance(getattr(n, "ctx", None), ast.Store)]
    changed = {_root(node) for node in stored if not isinstance(node, ast.Name)}
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        changed.add(_root(statement.value.func))
    return bound | inner, changed


def _root(node: ast.AST) -> str:
    """Return `a` of `a.b[c]`, "" where it does not begin with a name."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _display(statement: ast.AST) -> tuple[str, dict[str, ast.expr]] | None:
    """Return name and entries of `NAME = {"text": value, ...}`."""
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or not isinstance(statement.value, ast.Dict):
        return None
    target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
    pairs = zip(statement.value.keys, statement.value.values, strict=True)
    entries = {str(key.value): value for key, value in pairs if isinstance(key, ast.Constant)}
    return (target.id, entries) if isinstance(target, ast.Name) and len(entries) == len(statement.value.keys) else None


def _has_name(node: ast.ClassDef) -> bool:
    """Return whether a class has a field `name: Literal[...]`."""
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    return any(ast.unparse(f.target) == "name" and ast.unparse(f.annotation).startswith("Literal[") for f in fields)


def _is_union(statement: ast.Assign) -> bool:
    """Return whether a statement is `NAME = A | B | ...`."""
    allowed = (ast.BinOp, ast.BitOr, ast.Name, ast.Attribute, ast.Constant, ast.expr_context)
    return isinstance(statement.value, ast.BinOp) and all(isinstance(n, allowed) for n in ast.walk(statement.value))


def _version(module: str) -> str:
    """Return the version of the installed package in which a module lies that a spec names something of.

    Raises:
        PipelineError: If it lies in none, as one that was made in a notebook.
    """
    if (version := version_of(module)) is None:
        raise PipelineError(
            f"module {module!r}: its source cannot be read, and a trial's identity holds the code that it runs; "
            "define the classes of a spec in a file that is imported"
        )
    return version


TREE = Path(__file__).resolve().parents[2]
"""The folder in which the package stands that this process imported."""

_IMPORTED = Code(TREE / PACKAGE)
