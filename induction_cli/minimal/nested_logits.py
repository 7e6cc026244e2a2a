"""A phenomenological model of the jump: a loss of three nested logits. Equations and prediction are [ours].

    s1 = 1 / (1 + n1 e^{-beta_1})        layer 1: share of attention on the previous token, n1 rivals
    s2 = 1 / (1 + n2 e^{-alpha s1})      layer 2: share on the correct label, n2 = m - 1 other labels of the context
    loss = -log p,  p = e^{xi s2} / Z,   Z = e^{xi s2} + n2 e^{xi (1 - s2) / n2} + n3,   n3 labels not in the context

beta_1 acts through alpha and alpha through xi: each logit's gradient has the outer ones as factors. So the outermost is
learned first ("answer with some label of the context", loss log m: the plateau), if the plateau is long enough for it;
the two inner ones wait for each other and then go together: the cliff.

On the plateau s2 = 1/m, and there dL/ds2 = -xi exactly. With c = n2/m^2 gradient flow is

    xi'     = n3 / (m (m e^{xi/m} + n3))        hence  m^2 e^{xi/m} + n3 xi = n3 t/m + constant
    alpha'  = c xi s1,   beta_1' = c xi alpha s1 (1 - s1)

so beta_1 + e^beta_1 / n1 - alpha^2/2 stays as it began, and in the time tau = integral of xi dt the two take

    c tau = J = integral of d alpha / s1 from alpha_0  ~  n1 e^{-beta_10 + alpha_0^2/2} sqrt(pi/2) erfc(alpha_0/sqrt 2)

(the last for s1 << 1). The plateau ends when alpha s1 is of order 1. The larger xi is by then, the smaller the lead of
s2 that decides the answer: after a long plateau p jumps to 1, and the gradients go out, before s1 and s2 get far.
`jump_time` inverts tau(t), which is a closed form too.
All functions take tensors of any one shape (a grid, a set of starts); float64 is advised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from induction_cli.config import NestedConfig


def shares(config: NestedConfig, beta_1: Tensor, alpha: Tensor, xi: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """s1, s2, p, and q = the probability of the context's other labels together."""
    s1 = (beta_1 - math.log(config.n1)).sigmoid()
    s2 = (alpha * s1 - math.log(config.n2)).sigmoid()
    right, other = xi * s2, xi * (1 - s2) / config.n2 + math.log(config.n2)
    log_z = torch.logaddexp(torch.logaddexp(right, other), torch.full_like(right, math.log(config.n3)))
    return s1, s2, (right - log_z).exp(), (other - log_z).exp()


def loss(config: NestedConfig, beta_1: Tensor, alpha: Tensor, xi: Tensor) -> Tensor:
    """Nats; the landscape, for tensors that span a grid."""
    return -shares(config, beta_1, alpha, xi)[2].log()


def gradient(config: NestedConfig, beta_1: Tensor, alpha: Tensor, xi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dL/d beta_1, dL/d alpha, dL/d xi: the chain rule through the three softmaxes."""
    s1, s2, p, q = shares(config, beta_1, alpha, xi)
    by_s2 = xi * (p - 1 - q / config.n2)
    by_logit_2 = by_s2 * s2 * (1 - s2)
    by_xi = (p - 1) * s2 + q * (1 - s2) / config.n2
    return by_logit_2 * alpha * s1 * (1 - s1), by_logit_2 * s1, by_xi


@dataclass
class Trajectory:
    """[step, start] each; every start has its own clock."""

    time: Tensor
    beta_1: Tensor
    alpha: Tensor
    xi: Tensor

    def shares(self, config: NestedConfig) -> tuple[Tensor, Tensor, Tensor]:
        """s1, s2, p along the way."""
        return shares(config, self.beta_1, self.alpha, self.xi)[:3]


def flow(
    config: NestedConfig, beta_1: Tensor, alpha: Tensor, xi: Tensor, until: float, stride: float = 0.02
) -> Trajectory:
    """Gradient flow from starts [start]: Runge-Kutta 4, no parameter moving more than about `stride` in a step.

    Stops when every clock has reached `until`. The step also grows by at most a tenth at a time, and never exceeds
    until / 200.
    """
    config.check()
    state = torch.stack((beta_1, alpha, xi)).double()
    time = torch.zeros_like(state[0])
    step = torch.full_like(time, 1e-3)
    kept = [torch.cat((time[None], state))]

    def velocity(at: Tensor) -> Tensor:
        return -torch.stack(gradient(config, *at))

    while (time < until).any():
        k1 = velocity(state)
        step = torch.minimum(stride / k1.abs().amax(0).clamp(min=1e-12), step * 1.1).clamp(max=until / 200)
        step = torch.minimum(step, until - time)
        k2 = velocity(state + step / 2 * k1)
        k3 = velocity(state + step / 2 * k2)
        k4 = velocity(state + step * k3)
        state = state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        time = time + step
        step = step.clamp(min=1e-3)
        kept.append(torch.cat((time[None], state)))
    return Trajectory(*torch.stack(kept, 1))


def descend(
    config: NestedConfig,
    beta_1: Tensor,
    alpha: Tensor,
    xi: Tensor,
    n_steps: int,
    learning_rate: float,
    noise: float = 0.0,
    seed: int = 0,
) -> Trajectory:
    """Gradient descent, each gradient with Gaussian noise of sd `noise`; time = learning_rate * step."""
    config.check()
    generator = torch.Generator().manual_seed(seed)
    state = torch.stack((beta_1, alpha, xi)).double()
    kept = [state]
    for _ in range(n_steps):
        down = torch.stack(gradient(config, *state))
        down = down + noise * torch.randn(down.shape, generator=generator, dtype=down.dtype)
        state = state - learning_rate * down
        kept.append(state)
    time = learning_rate * torch.arange(n_steps + 1).double()[:, None].expand(-1, state.shape[1])
    return Trajectory(time, *torch.stack(kept, 1))


def first_passage(time: Tensor, value: Tensor, level: float = 0.5) -> Tensor:
    """Time at which value [step, start] first reaches `level`, linear in between; nan where it never does."""
    reached = value >= level
    later = reached.float().argmax(0, keepdim=True).clamp(min=1)
    now, before = value.gather(0, later), value.gather(0, later - 1)
    part = ((level - before) / (now - before)).clamp(0, 1)
    at = time.gather(0, later - 1) + part * (time.gather(0, later) - time.gather(0, later - 1))
    return torch.where(reached.any(0), at[0], torch.nan)


def order(config: NestedConfig, trajectory: Trajectory) -> dict[str, Tensor]:
    """When each of the three is learned, {name: [start]}: half of its rise by the trajectory's end, nan if it falls.

    context_label: p + q, that the answer is some label of the context (the outer logit); correct_label_attention: s2;
    previous_token_attention: s1 (the inner one).
    """
    s1, s2, p, q = shares(config, trajectory.beta_1, trajectory.alpha, trajectory.xi)
    parts = {"context_label": p + q, "correct_label_attention": s2, "previous_token_attention": s1}
    return {name: first_passage(trajectory.time, (x - x[0]) / (x[-1] - x[0])) for name, x in parts.items()}


def waiting(config: NestedConfig, beta_1: Tensor, alpha: Tensor, points: int = 4000) -> Tensor:
    """J, the integral of d alpha / s1 along the plateau, up to where alpha s1 = 1 (trapezoids)."""
    beta_1, alpha = beta_1.double(), alpha.double()
    constant = beta_1 + beta_1.exp() / config.n1 - alpha**2 / 2
    grid = alpha + torch.linspace(0, 1, points, dtype=torch.float64)[:, None] * 10  # [point, start]
    target = constant + grid**2 / 2  # = b + e^b / n1, to be solved for b = beta_1 at this alpha
    b = torch.minimum(target, (target.clamp(min=1) * config.n1).log().clamp(min=0))  # not below the root
    for _ in range(60):
        b = b - (b + b.exp() / config.n1 - target) / (1 + b.exp() / config.n1)
    s1 = (b - math.log(config.n1)).sigmoid()
    inside = ((grid * s1) < 1).double()
    return torch.trapezoid(inside / s1, grid, dim=0)


def waiting_closed_form(config: NestedConfig, beta_1: Tensor, alpha: Tensor) -> Tensor:
    """J for s1 << 1: n1 e^{-beta_1 + alpha^2/2} sqrt(pi/2) erfc(alpha / sqrt 2)."""
    beta_1, alpha = beta_1.double(), alpha.double()
    scale = config.n1 * math.sqrt(math.pi / 2)
    return scale * (-beta_1 + alpha**2 / 2).exp() * torch.special.erfc(alpha / math.sqrt(2))


def jump_time(config: NestedConfig, beta_1: Tensor, alpha: Tensor, xi: Tensor, closed_form: bool = False) -> Tensor:
    """Predicted end of the plateau, when p passes 1/2, for each start [start].

    J by quadrature, or closed_form from the erfc formula.
    """
    config.check()
    m, n3, xi = config.n2 + 1, config.n3, xi.double()
    j = (waiting_closed_form if closed_form else waiting)(config, beta_1, alpha)
    wanted = j * m**2 / config.n2

    def tau(at: Tensor) -> Tensor:  # integral of xi dt, a function of xi
        return m / n3 * (m**2 * (at - m) * (at / m).exp() + n3 * at**2 / 2)

    low, high = xi, xi + 200.0 * m
    for _ in range(200):
        middle = (low + high) / 2
        short = tau(middle) - tau(xi) < wanted
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return m / n3 * (m**2 * ((low / m).exp() - (xi / m).exp()) + n3 * (low - xi))
