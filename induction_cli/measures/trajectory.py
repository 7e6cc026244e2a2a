"""Paths of models through the space of their per-token losses (Olsson et al. 2022; paper.md 4.9)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


def random_columns(n_examples: int, n_ctx: int, seed: int = 0) -> Int[Tensor, " {n_examples}"]:
    """One random column per example, the same for every model and snapshot."""
    return torch.randint(n_ctx, (n_examples,), generator=torch.Generator().manual_seed(seed))


def principal_components(
    vectors: Float[Tensor, "row dimension"], n_components: int = 2
) -> tuple[Float[Tensor, "row component"], Float[Tensor, "component dimension"], Float[Tensor, " component"]]:
    """PCA of few long rows: (coordinates, directions, shares of the variance).

    Through the row-by-row Gram matrix, so the cost grows with the square of the rows and not of the dimensions. Columns
    are centred, not scaled. A component's sign is chosen so that the last row's coordinate is not below the first's.
    """
    centred = vectors.double() - vectors.double().mean(0)
    values, basis = torch.linalg.eigh(centred @ centred.T)
    values, basis = values.flip(0)[:n_components].clamp(min=0), basis.flip(1)[:, :n_components]
    coordinates = basis * values.sqrt()
    sign = torch.where(coordinates[-1] >= coordinates[0], 1.0, -1.0).double()
    directions = (centred.T @ basis / values.sqrt().clamp(min=1e-12)).T
    total = (centred**2).sum().clamp(min=1e-30)
    return coordinates * sign, directions * sign[:, None], values / total


def angle(a: Float[Tensor, "*batch dimension"], b: Float[Tensor, "*batch dimension"]) -> Float[Tensor, "*batch"]:
    """Degrees between vectors along the last axis; nan where one has no length."""
    cosine = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    return torch.rad2deg(cosine.clamp(-1, 1).acos())


@dataclass(frozen=True)
class Turn:
    degrees: float  # between the path's directions before and after the window
    elsewhere: Float[Tensor, " place"]  # the same at every other place of the path, degrees
    before: Float[Tensor, " dimension"]  # direction before, unit length
    after: Float[Tensor, " dimension"]


def turn(path: Float[Tensor, "snapshot dimension"], start: int, end: int) -> Turn:
    """How sharply a path turns across a window of snapshots start .. end.

    Directions are displacements over as many snapshots as half the window (at least two), up to its start and from its
    end. Elsewhere: the same two displacements around every window of the same width that does not overlap this one and
    fits on the path.
    """
    width = end - start
    reach = max(2, width // 2)

    def directions(first: int) -> tuple[Tensor, Tensor] | None:
        last = first + width
        if first < reach or last + reach >= len(path):
            return None
        return path[first] - path[first - reach], path[last + reach] - path[last]

    found = directions(start)
    if found is None:  # too near an end: what there is of it
        found = path[start] - path[max(0, start - reach)], path[min(len(path) - 1, end + reach)] - path[end]
    others = [directions(i) for i in range(len(path)) if i + width <= start or i >= end]
    angles = torch.stack([angle(*pair) for pair in others if pair]) if any(others) else torch.empty(0)
    before, after = found
    return Turn(float(angle(before, after)), angles, before / before.norm(), after / after.norm())


STILL = 3.0  # a stretch no longer than so many times the noise of standing still has no direction


def noise_of_standing_still(path: Float[Tensor, "snapshot dimension"]) -> float:
    """How far apart noise alone puts two snapshots of a path: from second differences, which a steady pace leaves out.

    A second difference has six times the variance of one snapshot's noise, a displacement two.
    """
    return (path.diff(n=2, dim=0).norm(dim=1).median() / math.sqrt(3)).item() if len(path) > 2 else 0.0


def sharpest_turn(path: Float[Tensor, "snapshot dimension"], start: int, end: int) -> Turn:
    """The largest turn that a path makes in a window of snapshots start .. end or the half width before it (claim 1f).

    A turn is the angle between two stretches of equal length that follow each other: from a snapshot to the first that
    lies one length away, and from there to the next. The length is half of the window's own, and more than STILL times
    the noise of standing still: equal times would find sharp turns where a path does not move. Elsewhere: the turns
    that begin at other snapshots. nan where no turn begins there.
    """
    between = torch.cdist(path, path, compute_mode="donot_use_mm_for_euclid_dist")
    length = max(between[start, end].item() / 2, STILL * noise_of_standing_still(path))
    away = (between > length * (1 - 1e-9)) & torch.ones_like(between, dtype=torch.bool).triu(1)
    reached, following = away.any(1), away.int().argmax(1)
    turns = [i for i in range(len(path)) if reached[i] and reached[following[i]]]
    first = {i: path[following[i]] - path[i] for i in turns}
    second = {i: path[following[following[i]]] - path[following[i]] for i in turns}
    degrees = {i: float(angle(first[i], second[i])) for i in turns}
    inside = [i for i in turns if start - (end - start) / 2 <= i <= end]
    others = torch.tensor([degrees[i] for i in turns if i not in inside], dtype=path.dtype)
    if not inside:
        nothing = torch.full(path.shape[1:], math.nan, dtype=path.dtype)
        return Turn(math.nan, others, nothing, nothing)
    at = max(inside, key=degrees.__getitem__)
    return Turn(degrees[at], others, first[at] / first[at].norm(), second[at] / second[at].norm())
