"""A small numerical weather model: rotating shallow water in a channel, with a mountain and a jet that makes weather.

It stands for what a numerical forecast is: known equations, put on a grid and stepped forward. One set of parameters
plays nature; others, with a wrong friction, no mountain or a coarser grid, play the imperfect model that every real
forecast is made with. The grid's cells are the nodes of a graph for a learned model. A state is a tensor
(..., 3, ny, nx): the height of the surface above its rest (m) and the wind to the east and the north (m s-1).
"""

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor

from ._checks import number, whole_number

VARIABLES = ("height", "east", "north")
GRAVITY = 9.81  # m s-2
DAY = 86400.0  # s


@dataclass(frozen=True)
class Channel:
    """A belt around a flat planet: periodic from west to east, walls in the south and the north.

    Another world is another one of these: ``dataclasses.replace(world, mountain=0.0)``. A time may be ``inf``: that
    process is then switched off.

    Attributes:
        nx, ny: cells from west to east and from south to north, even numbers of at least 8.
        length, width: km, of the channel.
        depth: m, of the fluid at rest over flat ground.
        coriolis: s-1, f in the middle of the channel.
        beta: m-1 s-1, how f grows to the north.
        jet: m s-1, the wind in the core of the jet that the mean along the channel is drawn to.
        jet_position: km, its core north of the middle.
        jet_width: km, where it has fallen to 42 % (the profile is sech²).
        relaxation: days, in which that mean is drawn to the jet; waves on it are left alone.
        drag: days, in which friction at the ground alone would stop a wind.
        mountain: m, height of its summit.
        mountain_position: km east of the western end and km north of the middle.
        mountain_width: km, half-width where it has fallen to 61 % (a Gaussian).
        diffusion: hours, in which the shortest wave of the grid is damped to 37 %; longer ones far less.
        minutes: length of a time step.

    Raises:
        ValueError: for a parameter out of range, or a time step that gravity waves or the damping do not allow.
    """

    nx: int = 64
    ny: int = 32
    length: float = 16000.0
    width: float = 8000.0
    depth: float = 3000.0
    coriolis: float = 1e-4
    beta: float = 1e-11
    jet: float = 80.0
    jet_position: float = 0.0
    jet_width: float = 400.0
    relaxation: float = 0.5
    drag: float = 3.0
    mountain: float = 1500.0
    mountain_position: tuple[float, float] = (4000.0, 0.0)
    mountain_width: float = 700.0
    diffusion: float = 6.0
    minutes: float = 15.0

    def __post_init__(self) -> None:
        for name in ("nx", "ny"):
            if whole_number(getattr(self, name), name, least=8) % 2:
                raise ValueError(f"{name}: expected an even number of cells, found {getattr(self, name)}")
        for name in ("length", "width", "depth", "jet_width", "mountain_width", "minutes"):
            number(getattr(self, name), name, least=0, open_end=True)
        for name in ("coriolis", "beta", "mountain"):
            number(getattr(self, name), name, least=0)
        for name in ("relaxation", "drag", "diffusion"):
            value = getattr(self, name)
            if value != math.inf:
                number(value, name, least=0, open_end=True)
        for name in ("jet", "jet_position"):
            number(getattr(self, name), name, least=-math.inf)
        if not isinstance(self.mountain_position, tuple) or len(self.mountain_position) != 2:
            raise ValueError(f"mountain_position: expected (km east, km north), found {self.mountain_position!r}")
        for value in self.mountain_position:
            number(value, "mountain_position", least=-math.inf)
        if self.mountain >= self.depth:
            raise ValueError(f"mountain: expected less than the depth of {self.depth:g} m, found {self.mountain:g}")
        # Fourth-order differences see a wave number of at most 1.372 / cell, Runge-Kutta 4 allows 2.83 a step.
        # Two thirds of it: a deeper place, and a wind that carries the waves, are faster than waves at rest.
        wave = 1.372 * math.hypot(1 / self.cell[0], 1 / self.cell[1]) * math.sqrt(GRAVITY * self.depth)
        limit = min(2.0 / wave, 2.5 * 3600 * self.diffusion / 4) / 60
        if self.minutes > limit:
            raise ValueError(f"minutes: expected at most {limit:.3g} for this grid, found {self.minutes:g}")

    @property
    def cell(self) -> tuple[float, float]:
        """Metres from one cell to the next, eastward and northward."""
        return 1000 * self.length / self.nx, 1000 * self.width / self.ny


@dataclass(frozen=True)
class _Operators:
    """Differences as matrices, and the fields of a world that do not change."""

    east: Tensor  # (nx, nx), from the right: field @ east
    north: Tensor  # (ny, ny), of a field that a wall mirrors (height, wind along the wall)
    north_odd: Tensor  # (ny, ny), of one that changes sign in the mirror (wind across the wall)
    smooth_east: Tensor  # (nx, nx)
    smooth_north: Tensor  # (ny, ny)
    smooth_north_odd: Tensor  # (ny, ny)
    rotation: Tensor  # (ny, 1) f
    ground: Tensor  # (ny, nx) m
    jet: Tensor  # (3, ny, 1) the state that the flow is drawn to


def tendency(state: Tensor, world: Channel) -> Tensor:
    """How fast the state changes: the equations of shallow water.

    With the thickness ``h = H + η - b`` over the ground b, the vorticity ``ζ = ∂v/∂x - ∂u/∂y`` and the Bernoulli
    function ``Φ = g η + (u² + v²) / 2``,

    ``∂η/∂t = -∂(hu)/∂x - ∂(hv)/∂y - ([η] - η_jet)/τ - K∇⁴η``
    ``∂u/∂t =  (f + ζ) v - ∂Φ/∂x - ([u] - u_jet)/τ - u/τ_drag - K∇⁴u``
    ``∂v/∂t = -(f + ζ) u - ∂Φ/∂y - [v]/τ - v/τ_drag - K∇⁴v``.

    [.] is the mean along the channel: the jet is kept alive, as the sun does it, and what becomes of its waves is the
    weather. Differences are centred and of fourth order. A wall mirrors what is on its other side, so that no fluid
    passes it. As matrices they are antisymmetric, ``Σ a D(b) = -Σ D(a) b``; therefore the first two terms of each
    line change neither mass nor energy, on any grid (only the steps in time do, a little).

    Args:
        state: (..., 3, ny, nx) η (m), u and v (m s-1); float32 or float64.
        world: the parameters.

    Returns:
        (..., 3, ny, nx) m s-1 and m s-2.

    Raises:
        TypeError, ValueError: if the state is no tensor of floats of this shape.

    Source: Sadourny (1975), doi:10.1175/1520-0469(1975)032<0680:TDOFDM>2.0.CO;2, for forms that conserve energy.
    """
    _check_state(state, world)
    return _tendency(state, world, _operators(world, state.dtype, state.device))


def _tendency(state: Tensor, world: Channel, op: _Operators) -> Tensor:
    height, u, v = state.unbind(-3)
    thick = world.depth + height - op.ground
    bernoulli = GRAVITY * height + 0.5 * (u * u + v * v)
    spin = op.rotation + v @ op.east - op.north @ u
    change = torch.stack(
        [
            -((thick * u) @ op.east) - op.north_odd @ (thick * v),
            spin * v - bernoulli @ op.east,
            -spin * u - op.north @ bernoulli,
        ],
        dim=-3,
    )
    if world.relaxation != math.inf:
        change = change - (state.mean(-1, keepdim=True) - op.jet) / (world.relaxation * DAY)
    if world.drag != math.inf:
        change = change - state * state.new_tensor([0.0, 1.0, 1.0])[:, None, None] / (world.drag * DAY)
    if world.diffusion != math.inf:
        change = change - _laplacian(_laplacian(state, op), op) / (64 * world.diffusion * 3600)
    return change


def _laplacian(state: Tensor, op: _Operators) -> Tensor:
    """In units of the grid: from 0 to -8 for the shortest wave."""
    north = torch.cat([op.smooth_north @ state[..., :2, :, :], op.smooth_north_odd @ state[..., 2:, :, :]], dim=-3)
    return state @ op.smooth_east + north


def step(state: Tensor, world: Channel) -> Tensor:
    """The state one time step (``world.minutes``) later, by the classical Runge-Kutta method of fourth order.

    Arguments, returns and errors as in :func:`tendency`, without its units per second. It can be differentiated:
    a correction may be learned through many steps.
    """
    _check_state(state, world)
    return forecast(state, world, world.minutes / 60)


def forecast(state: Tensor, world: Channel, hours: float, every: float | None = None) -> Tensor:
    """Run the model forward.

    Args:
        state: (..., 3, ny, nx), one start or many at once; float32 or float64.
        world: the parameters.
        hours: how far; whole time steps of ``world.minutes``.
        every: hours between the states that are kept; the last one only, if not given.

    Returns:
        (..., 3, ny, nx), or with ``every`` (..., hours / every, 3, ny, nx), the start not among them.

    Raises:
        TypeError, ValueError: as in :func:`tendency`, or for times that are no whole steps.
        FloatingPointError: if the model has become unstable.
    """
    _check_state(state, world)
    steps = _steps(hours, "hours", world)
    keep = steps if every is None else _steps(every, "every", world)
    if steps % keep:
        raise ValueError(f"every: expected a part of the {hours:g} hours, found {every:g}")
    op = _operators(world, state.dtype, state.device)
    dt, kept = 60 * world.minutes, []
    for i in range(steps):
        k1 = _tendency(state, world, op)
        k2 = _tendency(state + 0.5 * dt * k1, world, op)
        k3 = _tendency(state + 0.5 * dt * k2, world, op)
        k4 = _tendency(state + dt * k3, world, op)
        state = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        if (i + 1) % keep == 0:
            if not torch.isfinite(state).all():
                raise FloatingPointError(
                    f"forecast: expected finite values, found none after {(i + 1) * world.minutes / 60:.3g} hours: "
                    "shorten world.minutes, or look for wild values in the state"
                )
            kept.append(state)
    return kept[0] if every is None else torch.stack(kept, dim=-4)


def jet(world: Channel, dtype: torch.dtype = torch.float64) -> Tensor:
    """The state that the flow is drawn to: a jet in balance with its own pressure, ``g ∂η/∂y = -f u``.

    Args:
        world: the parameters.
        dtype: of the result.

    Returns:
        (3, ny, nx); the mean of η is 0, so that the mass stays what it is at rest.
    """
    return _operators(world, dtype, torch.device("cpu")).jet.expand(-1, -1, world.nx).clone()


def stirred(world: Channel, seed: int = 0, size: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """The jet with a little noise in its wind, to start a run that is to become weather.

    Args:
        world: the parameters.
        seed: of the noise.
        size: m s-1, its standard deviation.
        dtype: of the result.

    Returns:
        (3, ny, nx).

    Raises:
        ValueError: for a negative size or seed.
    """
    size, seed = number(size, "size", least=0), whole_number(seed, "seed", least=0)
    state = jet(world, torch.float64)
    state[1:] += size * torch.randn(state[1:].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return state.to(dtype)


# ---------------------------------------------------------------------------- what a state is made of


def mass(state: Tensor, world: Channel) -> Tensor:
    """Mean thickness of the fluid in metres, (...) of the leading dimensions of the state: nothing may change it."""
    _check_state(state, world)
    ground = _operators(world, state.dtype, state.device).ground
    return (world.depth + state[..., 0, :, :] - ground).mean((-2, -1))


def energy(state: Tensor, world: Channel) -> Tensor:
    """Kinetic and available potential energy, ``½ h (u² + v²) + ½ g η²``, per area and density, in m3 s-2.

    Args:
        state: (..., 3, ny, nx).
        world: the parameters.

    Returns:
        (...), the mean over the cells.

    Raises:
        TypeError, ValueError: as in :func:`tendency`.
    """
    _check_state(state, world)
    height, u, v = state.unbind(-3)
    thick = world.depth + height - _operators(world, state.dtype, state.device).ground
    return (0.5 * thick * (u * u + v * v) + 0.5 * GRAVITY * height * height).mean((-2, -1))


def vorticity(state: Tensor, world: Channel) -> Tensor:
    """``ζ = ∂v/∂x - ∂u/∂y`` in s-1, (..., ny, nx): positive where the air turns anticlockwise, as round a low."""
    _check_state(state, world)
    op = _operators(world, state.dtype, state.device)
    return state[..., 2, :, :] @ op.east - op.north @ state[..., 1, :, :]


def spectrum(field: Tensor) -> Tensor:
    """How the variance of a field is shared among waves along the channel.

    Args:
        field: (..., ny, nx), such as the wind to the north of a state.

    Returns:
        (..., nx // 2 + 1) variance of the waves with 0, 1, 2 ... crests around the channel, the mean over the rows;
        they add up to the mean of the field's square.

    Raises:
        TypeError, ValueError: for something else than a tensor of numbers with two dimensions at least.
    """
    if not torch.is_tensor(field) or not field.is_floating_point():
        raise TypeError(f"field: expected a tensor of floats, found {type(field).__name__}")
    if field.ndim < 2:
        raise ValueError(f"field: expected (..., ny, nx), found shape {tuple(field.shape)}")
    nx = field.shape[-1]
    power = torch.fft.rfft(field, dim=-1).abs().square() / nx**2
    twice = torch.full((nx // 2 + 1,), 2.0, dtype=field.dtype, device=field.device)
    twice[0] = 1.0
    if nx % 2 == 0:
        twice[-1] = 1.0
    return (power * twice).mean(-2)


# ---------------------------------------------------------------------------- other grids, and the graph


def coarsen(state: Tensor) -> Tensor:
    """Means of two by two cells: (..., ny, nx) -> (..., ny / 2, nx / 2), what an analysis on half the grid would hold.

    Raises:
        TypeError, ValueError: for something else than a tensor of floats, or an odd number of cells.
    """
    if not torch.is_tensor(state) or not state.is_floating_point():
        raise TypeError(f"state: expected a tensor of floats, found {type(state).__name__}")
    if state.ndim < 2 or state.shape[-1] % 2 or state.shape[-2] % 2:
        raise ValueError(f"state: expected (..., ny, nx), both even, found shape {tuple(state.shape)}")
    return state.unflatten(-1, (-1, 2)).mean(-1).unflatten(-2, (-1, 2)).mean(-2)


def refine(state: Tensor) -> Tensor:
    """Between the cells: (..., 3, ny, nx) -> (..., 3, 2 ny, 2 nx), by cubic interpolation.

    :func:`coarsen` of the result is close to the state, not equal to it. Walls mirror, as in :func:`tendency`.

    Raises:
        TypeError, ValueError: for something else than a state.
    """
    if not torch.is_tensor(state) or not state.is_floating_point():
        raise TypeError(f"state: expected a tensor of floats, found {type(state).__name__}")
    if state.ndim < 3 or state.shape[-3] != 3 or min(state.shape[-2:]) < 4:
        raise ValueError(f"state: expected (..., 3, ny, nx), found shape {tuple(state.shape)}")
    # weights of the four cells around a point at a quarter of a cell from the second one
    near = torch.tensor([-7.0, 105.0, 35.0, -5.0], dtype=state.dtype, device=state.device) / 128
    mirrored = state * state.new_tensor([1.0, 1.0, -1.0])[:, None, None]
    # two rows and columns more on each side
    tall = torch.cat([mirrored[..., :2, :].flip(-2), state, mirrored[..., -2:, :].flip(-2)], dim=-2)
    tall = _between(tall.transpose(-1, -2), near).transpose(-1, -2)
    wide = torch.cat([tall[..., -2:], tall, tall[..., :2]], dim=-1)
    return _between(wide, near)


def _between(x: Tensor, near: Tensor) -> Tensor:
    """(..., n + 4) -> (..., 2 n): a quarter of a cell before and after each inner one."""
    parts = x.unfold(-1, 4, 1)  # (..., n + 1, 4)
    after, before = parts @ near, parts @ near.flip(0)
    return torch.stack([before[..., :-1], after[..., 1:]], dim=-1).flatten(-2)


def grid_edges(world: Channel, diagonal: bool = False) -> tuple[Tensor, Tensor]:
    """Each cell with its neighbours, as :class:`stgcn_lab.models.MeshStep` takes them. Nodes are numbered row by row.

    Args:
        world: its grid.
        diagonal: whether the four across the corners are neighbours too.

    Returns:
        edge_index (2, edges), row 0 the source j and row 1 the target i; edge_features (edges, 3) float32: distance
        of j from i, and how far east and north of i it lies, in widths of a cell from west to east.
    """
    dx, dy = world.cell
    nodes = torch.arange(world.nx * world.ny).reshape(world.ny, world.nx)
    index, features = [], []
    for north in (-1, 0, 1):
        for east in (-1, 0, 1):
            if (north, east) == (0, 0) or (north and east and not diagonal):
                continue
            rows = torch.arange(world.ny) + north
            inside = (rows >= 0) & (rows < world.ny)
            source = nodes.roll(-east, dims=1)[rows[inside]].flatten()
            index.append(torch.stack([source, nodes[inside].flatten()]))
            way = torch.tensor([math.hypot(east * dx, north * dy), east * dx, north * dy]) / dx
            features.append(way.expand(source.numel(), 3))
    return torch.cat(index, dim=1), torch.cat(features)


def to_nodes(state: Tensor) -> Tensor:
    """(..., 3, ny, nx) -> (..., ny * nx, 3): the cells as nodes of a graph, numbered row by row."""
    return state.flatten(-2).transpose(-1, -2)


def to_grid(nodes: Tensor, world: Channel) -> Tensor:
    """(..., ny * nx, 3) -> (..., 3, ny, nx): the inverse of :func:`to_nodes`."""
    return nodes.transpose(-1, -2).unflatten(-1, (world.ny, world.nx))


def ground(world: Channel, dtype: torch.dtype = torch.float32) -> Tensor:
    """(ny, nx) height of the ground in metres."""
    return _operators(world, dtype, torch.device("cpu")).ground.clone()


def places(world: Channel) -> tuple[Tensor, Tensor]:
    """Where the cells are: (nx,) km east of the western end, and (ny,) km north of the middle."""
    x = (torch.arange(world.nx) + 0.5) * world.length / world.nx
    return x, (torch.arange(world.ny) + 0.5) * world.width / world.ny - world.width / 2


# ---------------------------------------------------------------------------- inside


@lru_cache(maxsize=32)
def _operators(world: Channel, dtype: torch.dtype, device: torch.device) -> _Operators:
    x, y = (place.double() for place in places(world))
    dx, dy = world.cell
    first, second = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}, {-1: 1.0, 0: -2.0, 1: 1.0}
    north, odd = (_across(world.ny, first, sign) / dy for sign in (1, -1))
    east_at, north_at = world.mountain_position
    across = (x - east_at + world.length / 2) % world.length - world.length / 2  # the short way round
    hill = torch.exp(-0.5 * (across**2 + (y[:, None] - north_at) ** 2) / world.mountain_width**2)
    rotation = (world.coriolis + world.beta * 1000 * y)[:, None]
    wind = world.jet / torch.cosh((y[:, None] - world.jet_position) / world.jet_width) ** 2
    height = torch.linalg.lstsq(north, -rotation * wind / GRAVITY, driver="gelsd").solution
    balanced = torch.stack([height - height.mean(), wind, torch.zeros_like(wind)])
    # The mountain displaces fluid that is nowhere else: the mean of η is 0 with it and without.
    made = _Operators(
        east=_around(world.nx, first).T / dx,
        north=north,
        north_odd=odd,
        smooth_east=_around(world.nx, second),
        smooth_north=_across(world.ny, second, 1),
        smooth_north_odd=_across(world.ny, second, -1),
        rotation=rotation,
        ground=world.mountain * hill,
        jet=balanced,
    )
    return _Operators(**{f.name: getattr(made, f.name).to(device, dtype).contiguous() for f in fields(_Operators)})


def _around(cells: int, weights: dict[int, float]) -> Tensor:
    """A stencil on a ring as a matrix from the left."""
    eye = torch.eye(cells, dtype=torch.float64)
    return sum((w * eye.roll(offset, dims=1) for offset, w in weights.items()), torch.zeros_like(eye))


def _across(cells: int, weights: dict[int, float], sign: int) -> Tensor:
    """The same between two walls: a cell behind a wall is the mirrored one before it, times the sign."""
    matrix = torch.zeros(cells, cells, dtype=torch.float64)
    for i in range(cells):
        for offset, w in weights.items():
            j = i + offset
            mirrored = -1 - j if j < 0 else 2 * cells - 1 - j
            if 0 <= j < cells:
                matrix[i, j] += w
            else:
                matrix[i, mirrored] += sign * w
    return matrix


def _steps(hours: float, name: str, world: Channel) -> int:
    steps = number(hours, name, least=0, open_end=True) * 60 / world.minutes
    if abs(steps - round(steps)) > 1e-6:
        raise ValueError(f"{name}: expected whole steps of {world.minutes:g} minutes, found {hours:g} hours")
    return round(steps)


def _check_state(state: Tensor, world: Channel) -> None:
    if not isinstance(world, Channel):
        raise TypeError(f"world: expected a dynamics.Channel, found {type(world).__name__}")
    if not torch.is_tensor(state) or state.dtype not in (torch.float32, torch.float64):
        found = state.dtype if torch.is_tensor(state) else type(state).__name__
        raise TypeError(f"state: expected a tensor of float32 or float64, found {found}")
    if state.ndim < 3 or tuple(state.shape[-3:]) != (3, world.ny, world.nx):
        raise ValueError(
            f"state: expected (..., 3, {world.ny}, {world.nx}) as the world's grid, found {tuple(state.shape)}"
        )
