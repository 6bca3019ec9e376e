"""Scope: the user's word about where, inside what the owners allow.

    {parity: uva}                       parity runs at uva
    {parity: uva || amc}                at the first of the two that may run it and answers
    {parity: uva & amc}                 its result shall be at both
    {around: uva, 50 ms}                steps run at uva or at sites within 50 ms of it
    uva & amc                           without braces: all that the graph gives

A word is the label of a step, the name or role of an operation, or the name of a dataset that is
asked for as it is. ``%`` (parts at several sites that are seen as one) and ``set`` (so many
instances at each site) are understood and refused: nothing here could honour them. ``&`` binds
closer than ``%``, ``%`` closer than ``||``.

Pure. A scope never widens anything: what an agreement or a site refuses stays refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from dataflow._quantities import format_seconds, parse_seconds
from dataflow.errors import ConfigError, ScopeError
from dataflow.sites import Topology

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

_PLAIN = re.compile(r"\w[\w.-]*")
#: Entries that are no bindings; a step of that name is written in quotes.
_KEYWORDS = ("around", "set")
_NOWHERE = -1


@dataclass(frozen=True, slots=True)
class At:
    """One site."""

    site: str
    position: int = field(default=_NOWHERE, compare=False)

    def __str__(self) -> str:
        return _quoted(self.site)


@dataclass(frozen=True, slots=True)
class Both:
    """``&``: at every one of them."""

    parts: tuple[Place, ...]

    def __str__(self) -> str:
        return _joined(self, " & ")


@dataclass(frozen=True, slots=True)
class Cross:
    """``%``: parts at several sites that are seen as one."""

    parts: tuple[Place, ...]
    position: int = field(default=_NOWHERE, compare=False)

    def __str__(self) -> str:
        return _joined(self, " % ")


@dataclass(frozen=True, slots=True)
class Either:
    """``||``: at the first of them that may be used and answers."""

    parts: tuple[Place, ...]

    def __str__(self) -> str:
        return _joined(self, " || ")


Place = At | Both | Cross | Either
#: How closely each sign binds.
_RANK: Mapping[type, int] = {Either: 0, Cross: 1, Both: 2, At: 3}


@dataclass(frozen=True, slots=True)
class Bind:
    """What ``word`` names goes to ``place``; without a word, all that the graph gives."""

    word: str
    place: Place
    position: int = field(default=_NOWHERE, compare=False)

    def __str__(self) -> str:
        if not self.word:
            return str(self.place)
        word = f'"{self.word}"' if self.word in _KEYWORDS else _quoted(self.word)
        return f"{word}: {self.place}"


@dataclass(frozen=True, slots=True)
class Around:
    """At ``site`` or within so many ``seconds`` of it, there and back, as measured."""

    site: str
    seconds: float
    position: int = field(default=_NOWHERE, compare=False)

    def __str__(self) -> str:
        return f"around: {_quoted(self.site)}, {self.seconds * 1000:.15g} ms"


@dataclass(frozen=True, slots=True)
class Counts:
    """So many instances at each site."""

    counts: tuple[tuple[int, str], ...]
    position: int = field(default=_NOWHERE, compare=False)

    def __str__(self) -> str:
        return "set: " + ", ".join(f"{count}@{_quoted(site)}" for count, site in self.counts)


Entry = Bind | Around | Counts


@dataclass(frozen=True, slots=True)
class Scope:
    """A whole scope; its text reads back as the same.

    Attributes
    ----------
    entries
        In the order in which they were written.
    source
        The text that was given, to point into.
    """

    entries: tuple[Entry, ...] = ()
    source: str = field(default="", compare=False)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __str__(self) -> str:
        if len(self.entries) == 1 and isinstance(first := self.entries[0], Bind) and not first.word:
            return str(first)
        return "{" + ", ".join(map(str, self.entries)) + "}" if self.entries else ""

    @property
    def binds(self) -> tuple[Bind, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, Bind))

    @property
    def around(self) -> tuple[Around, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, Around))

    def bind_of(self, *words: str) -> Bind | None:
        """What is said of the first of these words that is named; else of all."""
        binds = {bind.word: bind for bind in self.binds}
        found = (binds[word] for word in words if word and word in binds)
        return next(found, binds.get(""))

    def place_of(self, *words: str) -> Place | None:
        """Where that goes."""
        bind = self.bind_of(*words)
        return None if bind is None else bind.place

    def document(self) -> str | dict[str, str]:
        """To be kept in a plan: a mapping where each word has one site, else the text."""
        plain = {b.word: b.place.site for b in self.binds if b.word and isinstance(b.place, At)}
        return plain if len(plain) == len(self.entries) else str(self)

    def wrong(self, reason: str, position: int = _NOWHERE) -> ScopeError:
        """The error that points at a place in this scope."""
        return ScopeError(reason, self.source if position >= 0 else "", position)

    def check(self, words: Sequence[str], sites: Sequence[str]) -> None:
        """Whether it can be honoured at all, with these words and sites to speak of.

        Raises
        ------
        ScopeError
            With the position of what is wrong.
        """
        for entry in self.entries:
            if isinstance(entry, Counts):
                raise self.wrong(
                    "set: instances that are kept alive at sites are not there yet\n"
                    "What you can do: say where each step runs, as in {step: site}.",
                    entry.position,
                )
            if isinstance(entry, Bind) and entry.word and entry.word not in words:
                known = ", ".join(sorted(set(words)))
                raise self.wrong(
                    f"no step, operation or role is called {entry.word!r}; there are {known}",
                    entry.position,
                )
            places = _leaves(entry.place) if isinstance(entry, Bind) else [entry]
            for leaf in places:
                if leaf.site not in sites:
                    known = ", ".join(sorted(sites)) or "none"
                    raise self.wrong(f"no site {leaf.site!r}; there are {known}", leaf.position)
            if isinstance(entry, Bind):
                self._check_place(entry.place)

    def _check_place(self, place: Place) -> None:
        if isinstance(place, Cross):
            raise self.wrong(
                "%: parts of one dataset at several sites, seen as one, are not there yet\n"
                "What you can do: & for a whole copy at each, or operations over both datasets.",
                place.position,
            )
        if not isinstance(place, At):
            for part in place.parts:
                self._check_place(part)


# --- what it means -----------------------------------------------------------------------------


def choose(place: Place, fit: Callable[[str], bool]) -> dict[str, bool]:
    """The sites that a place comes to, and whether each was named without an alternative.

    Of alternatives the first is taken of which every site is ``fit``; if there is none, the first.
    """
    match place:
        case At():
            return {place.site: True}
        case Either():
            found = [choose(part, fit) for part in place.parts]
            best = next((one for one in found if all(map(fit, one))), found[0])
            return dict.fromkeys(best, False)
        case _:
            every: dict[str, bool] = {}
            for part in place.parts:
                every.update(choose(part, fit))
            return every


def has_both(place: Place | None) -> bool:
    """Whether a place is, or may come to, more than one site at a time."""
    if place is None or isinstance(place, At):
        return False
    return isinstance(place, Both) or any(map(has_both, place.parts))


def too_far(scope: Scope, topology: Topology) -> dict[str, str]:
    """Sites that no ``around`` lets in, each with the reason in words.

    Only what was measured or declared counts: of a road that nobody knows, nobody can say that it
    is short enough.
    """
    far: dict[str, str] = {}
    for entry in scope.around:
        for site in topology.site_by_name:
            seconds = delay(topology, entry.site, site)
            if seconds is not None and seconds <= entry.seconds:
                continue
            how = "at an unknown distance" if seconds is None else format_seconds(seconds)
            wanted = format_seconds(entry.seconds)
            far[site] = f"the scope says within {wanted} of {entry.site}, and it is {how} away"
    return far


def delay(topology: Topology, here: str, there: str) -> float | None:
    """Seconds of a question from ``here`` and its answer; ``None`` if nobody knows.

    The word of ``here`` counts before that of the other end.
    """
    if here == there:
        return 0.0
    known = {(link.source, link.target): link for link in topology.links}
    ways = (known.get((there, here)), known.get((here, there)))
    sure = [link for link in ways if link is not None and link.origin != "assumed"]
    best = next(
        (link for link in sure if link.origin in ("measured", "timed")), next(iter(sure), None)
    )
    return None if best is None else best.latency


# --- reading -----------------------------------------------------------------------------------


def scope_of(given: Scope | str | Mapping[str, str] | None) -> Scope:
    """A scope from what a user gives: a text, a mapping of words to places, or nothing.

    Raises
    ------
    ScopeError
        If it cannot be read, with the position.
    ConfigError
        If it is of another kind altogether.

    Examples
    --------
    >>> str(scope_of({"parity": "uva || amc", "sum": "uva"}))
    '{parity: uva || amc, sum: uva}'
    """
    if isinstance(given, Scope):
        return given
    if given is None:
        return Scope()
    if isinstance(given, str):
        return parse(given)
    if not isinstance(given, Mapping):
        raise ConfigError(
            "scope must be a mapping, as in {'name': 'site'}, or a text, as in '{name: site}', "
            f"not {given!r}"
        )
    entries: list[Entry] = []
    for word, said in given.items():
        text = str(said)
        if _PLAIN.fullmatch(text):
            place: Place = At(text)
        else:
            read = parse(text)
            first = read.entries[0]
            if len(read.entries) > 1 or not isinstance(first, Bind) or first.word:
                raise read.wrong(f"{word}: a place is wanted here, as in s1 & s2", 0)
            place = first.place
        entries.append(Bind(str(word), place))
    return Scope(tuple(entries))


def parse(text: str) -> Scope:
    """The scope that a text means.

    Raises
    ------
    ScopeError
        With the position of what is wrong.

    Examples
    --------
    >>> parse("{parity: uva & amc}").entries[0].word
    'parity'
    """
    from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

    start = "scope" if text.lstrip().startswith("{") else "place"
    try:
        tree: Tree[Token] = _grammar().parse(text, start=start)
    except UnexpectedCharacters as error:
        at = error.pos_in_stream or 0
        raise ScopeError(_expected(error.allowed or (), text[at]), text, at) from None
    except UnexpectedToken as error:
        if error.token.type == "$END":
            raise ScopeError(_expected(error.expected, ""), text, len(text)) from None
        at = error.token.start_pos or 0
        raise ScopeError(_expected(error.expected, str(error.token)), text, at) from None
    except UnexpectedEOF as error:
        raise ScopeError(_expected(error.expected, ""), text, len(text)) from None
    return _Reader(text).scope(tree)


@cache
def _grammar() -> Lark:
    from lark import Lark

    text = resources.files("dataflow.policy").joinpath("scope.lark").read_text("utf-8")
    return Lark(text, start=["scope", "place"], parser="lalr", propagate_positions=True)


_NAMES: Mapping[str, str] = {
    "NAME": "a name",
    "QUOTED": "a name",
    "INT": "a number",
    "DELAY": "a delay such as 50 ms",
    "_NEXT": "','",
    "COMMA": "','",
    "COLON": "':'",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "LPAR": "'('",
    "RPAR": "')'",
    "AMPERSAND": "'&'",
    "PERCENT": "'%'",
    "AT": "'@'",
    "AROUND": "a name",
    "SET": "a name",
    "$END": "the end",
}


def _expected(tokens: Any, found: str) -> str:
    words = sorted({_NAMES.get(token, "'||'") for token in tokens})
    wanted = ", ".join(words[:-1]) + (" or " if words[1:] else "") + "".join(words[-1:])
    return f"expected {wanted}, not {found!r}" if found else f"it ends too early: expected {wanted}"


class _Reader:
    """From the parser's tree to records, with what only a look at the whole can find wrong."""

    def __init__(self, text: str) -> None:
        self.text = text

    def wrong(self, reason: str, position: int) -> ScopeError:
        return ScopeError(reason, self.text, position)

    def scope(self, tree: Tree[Token]) -> Scope:
        if tree.data == "place":
            return Scope((Bind("", self.place(tree.children[0]), 0),), self.text)
        entries = tuple(self.entry(child) for child in tree.children)
        seen: set[str] = set()
        for entry in entries:
            word = entry.word if isinstance(entry, Bind) else ""
            if word and word in seen:
                raise self.wrong(f"{word!r} is there twice", entry.position)
            seen.add(word)
        return Scope(entries, self.text)

    def entry(self, tree: Any) -> Entry:
        first, *rest = tree.children
        if tree.data == "bind":
            return Bind(_name(first), self.place(rest[0]), first.start_pos)
        if tree.data == "counts":
            counts = tuple((int(c.children[0]), _name(c.children[1])) for c in tree.children)
            return Counts(counts, tree.meta.start_pos)
        try:
            seconds = parse_seconds(str(rest[0]).strip(), "around")
        except ConfigError as error:
            raise self.wrong(error.message, rest[0].start_pos) from None
        if seconds <= 0:
            raise self.wrong("around: the delay must be more than nothing", rest[0].start_pos)
        return Around(_name(first), seconds, first.start_pos)

    def place(self, tree: Any) -> Place:
        if tree.data == "at":
            token = tree.children[0]
            return At(_name(token), token.start_pos)
        if tree.data == "inside":
            return self.place(tree.children[0])
        parts = tuple(self.place(child) for child in tree.children)
        if tree.data == "either":
            return Either(parts)
        if tree.data == "crossed":
            return Cross(parts, tree.meta.start_pos)
        both = Both(parts)
        seen: set[str] = set()
        for leaf in _leaves(both):
            if leaf.site in seen:
                raise self.wrong(f"{leaf.site} is there twice in one &", leaf.position)
            seen.add(leaf.site)
        if any(isinstance(part, Cross) for part in parts):
            raise self.wrong("% cannot stand under &", tree.meta.start_pos)
        return both


def _leaves(place: Place) -> Iterator[At]:
    if isinstance(place, At):
        yield place
    else:
        for part in place.parts:
            yield from _leaves(part)


def _name(token: Any) -> str:
    return str(token).strip('"')


def _quoted(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else f'"{name}"'


def _joined(place: Both | Cross | Either, sign: str) -> str:
    rank = _RANK[type(place)]
    return sign.join(f"({p})" if _RANK[type(p)] <= rank else str(p) for p in place.parts)
