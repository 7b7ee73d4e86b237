"""Which layers of two engines do the same work.

Engines of one model fuse its nodes differently, so layers are matched by their nodes of the model, in this order:

1. "nodes". Layers of one kind with the same nodes are a group. Of the others, layers that share nodes, directly or
   indirectly, are a group: one against one, or many against many where the fusion differs. Equal sets go first
   because TensorRT names a node in several layers (a fully connected layer and its reshape, the parts of a
   normalization): linking all layers that share nodes would join half a network into one group. A layer that such a
   group leaves without a partner joins the group that it shares most nodes with.
2. "name", without " [profile 1]" at its end; repeated names in their order.
3. "signature": kind and shapes of inputs and outputs, by a longest common subsequence, which keeps the order. Layers
   without a known type and shape are left out: a type alone would match unrelated layers.
4. Layers that remain are on one side alone.

Reformats are TensorRT's, not the model's: they are groups of their own that name the group they serve. As part of that
group they would hide what a comparison often looks for, a fast layer whose gain is lost to changes of layout. All
reformats of a group are matched as one, as one precision may reformat the input and another the output.

Swapping the sides swaps the result.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from loadtrt.results.engine_info import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from loadtrt.results.engine_info import Layer

MatchedBy = Literal["nodes", "name", "signature", "served layer"]

_PROFILE = re.compile(r" \[profile \d+\]$")
# How TensorRT names the reformats before and after a layer: from 8 on, and before that.
_SERVES = re.compile(r"Reformatting CopyNode for (?:In|Out)put Tensor \d+ to (.+)|(.+) (?:in|out)put reformatter \d+")


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity, as names repeat
class Member:
    """A layer of one side.

    side: 0 for A, 1 for B.
    place: index in the order in which the side ran.
    name, nodes: name and nodes without " [profile k]".
    kind: loadtrt's kind.
    shapes: shapes of the inputs and of the outputs.
    """

    side: int
    place: int
    name: str
    nodes: frozenset[str]
    kind: str
    shapes: tuple[tuple[tuple[int, ...], ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Layers that do the same work.

    members: A's layers before B's, each in order.
    matched_by: how they were matched; None where one side has none.
    serves: for reformats, the group whose layouts they change.
    """

    members: Sequence[Member]
    matched_by: MatchedBy | None
    serves: Group | None = None


def match_layers(a: Sequence[Layer], b: Sequence[Layer]) -> list[Group]:
    """Groups with every layer of A and B in exactly one. Groups are in the order of A; layers of B alone come after
    the layers that ran before them in B."""
    members = [*_members(0, a), *_members(1, b)]
    served = _served(members)
    rest = [member for member in members if member not in served]
    groups: list[Group] = []
    matched_by: MatchedBy
    for matched_by, match in (("nodes", _by_nodes), ("name", _by_name), ("signature", _by_signature)):
        matched = match(rest)
        groups += [Group(group, matched_by) for group in matched]
        taken = {member for group in matched for member in group}
        rest = [member for member in rest if member not in taken]
    groups += [Group([member], None) for member in rest]

    home = {member: group for group in groups for member in group.members}
    reformats: dict[Group, list[Member]] = {}
    for member, target in served.items():
        reformats.setdefault(home[target], []).append(member)
    groups += [Group(group, "served layer" if _both(group) else None, row) for row, group in reformats.items()]
    return _in_order(groups)


def _members(side: int, layers: Iterable[Layer]) -> Iterator[Member]:
    for place, layer in enumerate(layers):
        yield Member(
            side=side,
            place=place,
            name=_PROFILE.sub("", layer.name),
            nodes=frozenset(_PROFILE.sub("", node) for node in layer.nodes),  # read from a name, they have it too
            kind=kind_of(layer),
            shapes=tuple(tuple(tensor.shape for tensor in tensors) for tensors in (layer.inputs, layer.outputs)),
        )


def _both(group: Iterable[Member]) -> bool:
    return len({member.side for member in group}) == 2


def _served(members: Sequence[Member]) -> dict[Member, Member]:
    """Reformats, and the layer of their side that they serve. Reformats of the network's inputs and outputs are left
    out."""
    matches = [(member, None if member.nodes else _SERVES.fullmatch(member.name)) for member in members]
    named: dict[tuple[int, str], Member] = {}
    for member, match in matches:
        if not match:
            named.setdefault((member.side, member.name), member)
    targets = {member: named.get((member.side, match[1] or match[2])) for member, match in matches if match}
    return {member: target for member, target in targets.items() if target}


def _by_nodes(members: Sequence[Member]) -> list[list[Member]]:
    alike: dict[tuple[frozenset[str], str], list[Member]] = {}
    for member in members:
        if member.nodes:
            alike.setdefault((member.nodes, member.kind), []).append(member)
    equal = [group for group in alike.values() if _both(group)]
    taken = {member for group in equal for member in group}
    linked = list(_linked([member for member in members if member not in taken]))
    lonely = [member for group in linked if not _both(group) for member in group]
    return _joined(equal, lonely) + [group for group in linked if _both(group)]


def _linked(members: Sequence[Member]) -> Iterator[list[Member]]:
    """The connected components of layers that share nodes."""
    holders: dict[str, list[Member]] = {}
    for member in members:
        for node in member.nodes:
            holders.setdefault(node, []).append(member)
    seen: set[Member] = set()
    for start in members:
        if not start.nodes or start in seen:
            continue
        seen.add(start)
        group = [start]
        for member in group:  # the group grows meanwhile
            for node in member.nodes:
                new = [other for other in holders.pop(node, ()) if other not in seen]
                seen.update(new)
                group += new
        yield sorted(group, key=lambda member: (member.side, member.place))  # sets have no order of their own


def _joined(equal: list[list[Member]], lonely: Sequence[Member]) -> list[list[Member]]:
    """The groups, with each lonely layer in the one that it shares most nodes with, else the first such."""
    holders: dict[str, list[int]] = {}
    firsts = []
    for number, group in enumerate(equal):
        firsts.append({member.side: member.place for member in reversed(group)})
        for node in group[0].nodes:
            holders.setdefault(node, []).append(number)
    joined = [list(group) for group in equal]
    for member in lonely:
        shared = Counter(number for node in member.nodes for number in holders.get(node, ()))
        if shared:
            best = min(shared, key=lambda number: (-shared[number], firsts[number][member.side]))
            joined[best].append(member)
    return [sorted(group, key=lambda member: (member.side, member.place)) for group in joined]


def _by_name(members: Sequence[Member]) -> list[list[Member]]:
    named: dict[str, tuple[list[Member], list[Member]]] = {}
    for member in members:
        named.setdefault(member.name, ([], []))[member.side].append(member)
    return [list(pair) for a, b in named.values() for pair in zip(a, b, strict=False)]


def _by_signature(members: Sequence[Member]) -> list[list[Member]]:
    known = [member for member in members if member.kind and any(shape for side in member.shapes for shape in side)]
    sides = [[member for member in known if member.side == side] for side in (0, 1)]
    signs = [[(member.kind, member.shapes) for member in side] for side in sides]
    if (len(signs[0]), signs[0]) <= (len(signs[1]), signs[1]):
        pairs = _common(*signs)
    else:  # of several longest subsequences the same, whichever side is called A
        pairs = [(i, j) for j, i in _common(signs[1], signs[0])]
    return [[sides[0][i], sides[1][j]] for i, j in pairs]


def _common(a: Sequence[object], b: Sequence[object]) -> list[tuple[int, int]]:
    """Index pairs of a longest common subsequence. L[i, j], of the first i and j items, is the largest of L[i − 1, j],
    L[i, j − 1] and L[i − 1, j − 1] + [a_i = b_j]; row by row, the second of these is a running maximum."""
    codes = {sign: code for code, sign in enumerate(dict.fromkeys([*a, *b]))}
    line = np.array([codes[sign] for sign in b], np.int64)
    longest = np.zeros((len(a) + 1, len(b) + 1), np.int32)
    for i, sign in enumerate(a):
        here = np.maximum(longest[i, 1:], longest[i, :-1] + (line == codes[sign]))
        np.maximum.accumulate(here, out=longest[i + 1, 1:])
    pairs = []
    i, j = len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif longest[i - 1, j] >= longest[i, j - 1]:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def _in_order(groups: Sequence[Group]) -> list[Group]:
    home = {member: group for group in groups for member in group.members}
    keys: dict[Group, tuple[int, int]] = {
        group: (group.members[0].place, -1) for group in groups if not group.members[0].side
    }
    last = -1
    for member in sorted((member for member in home if member.side), key=lambda member: member.place):
        group = home[member]
        if group.members[0].side:
            keys.setdefault(group, (last, member.place))
        else:
            last = keys[group][0]
    return sorted(groups, key=keys.__getitem__)
