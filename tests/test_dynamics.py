"""The small numerical weather model: what it conserves, known waves and balances, and its grids."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from stgcn_lab import dynamics, models
from stgcn_lab.dynamics import GRAVITY, Channel

SMALL = Channel(nx=32, ny=16, minutes=30.0)
# no forcing, no friction, no mountain
FREE = replace(SMALL, relaxation=math.inf, drag=math.inf, diffusion=math.inf, mountain=0.0)
STILL = replace(FREE, jet=0.0, coriolis=0.0, beta=0.0)


def smooth(world: Channel, seed: int = 0) -> torch.Tensor:
    """A start with a few long waves in all fields, over the jet."""
    x, y = (place.double() for place in dynamics.places(world))
    phase = 2 * math.pi * torch.rand(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    state = dynamics.jet(world)
    for wave in (1, 2, 3):
        shape = torch.sin(math.pi * (y[:, None] / world.width + 0.5)) ** 2
        for i, size in enumerate((30.0, 5.0, 5.0)):
            state[i] += size * shape * torch.cos(2 * math.pi * wave * x / world.length + phase[wave - 1, i])
    return state


# ---- what is conserved ----


@pytest.mark.parametrize("mountain", [0.0, 1500.0])
def test_the_equations_on_the_grid_change_neither_mass_nor_energy(mountain):
    world = replace(FREE, mountain=mountain)
    state = smooth(world) + torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    change = dynamics.tendency(state, world)
    height, u, v = state
    thick = world.depth + height - dynamics.ground(world, torch.float64)
    kinetic = thick * (u * change[1] + v * change[2]) + 0.5 * (u * u + v * v) * change[0]
    potential = GRAVITY * height * change[0]
    assert abs(change[0].mean()) < 1e-12 * change[0].abs().mean()
    assert abs((kinetic + potential).mean()) < 1e-12 * kinetic.abs().mean()


def test_a_free_run_keeps_its_mass_and_nearly_its_energy_and_the_better_the_shorter_the_step():
    state, drift = smooth(FREE), []
    for minutes in (30.0, 15.0):
        world = replace(FREE, minutes=minutes)
        end = dynamics.forecast(state, world, 24)
        assert dynamics.mass(end, world) == pytest.approx(float(dynamics.mass(state, world)), abs=1e-9)
        drift.append(abs(float(dynamics.energy(end, world) / dynamics.energy(state, world) - 1)))
    assert drift[0] < 1e-3
    assert drift[1] < drift[0] / 8  # of fourth order at least, less what rounding leaves


def test_friction_and_diffusion_take_energy_and_no_mass():
    state = smooth(FREE)
    before = dynamics.energy(state, FREE)
    for process in ({"drag": 3.0}, {"diffusion": 6.0}):
        world = replace(FREE, **process)
        end = dynamics.forecast(state, world, 12)
        assert dynamics.energy(end, world) < before
        assert dynamics.mass(end, world) == pytest.approx(float(dynamics.mass(state, world)), abs=1e-9)


def test_the_forcing_keeps_the_mass_and_draws_the_mean_to_the_jet():
    world = replace(FREE, relaxation=0.5, jet_width=1000.0)
    rest = torch.zeros(3, 16, 32, dtype=torch.float64)
    end = dynamics.forecast(rest, world, 48)
    assert dynamics.mass(end, world) == pytest.approx(float(dynamics.mass(rest, world)), abs=1e-9)
    assert (end[1].mean(-1) - dynamics.jet(world)[1, :, 0]).abs().max() < 5


# ---- known solutions ----


def test_a_gravity_wave_moves_at_its_speed():
    # over flat ground without rotation, small: η = a cos(k (x - c t)), u = η g / c, c = √(g H)
    world = replace(STILL, nx=64, minutes=10.0)
    x, _ = (place.double() for place in dynamics.places(world))
    k, speed = 2 * math.pi * 2 / (1000 * world.length), math.sqrt(GRAVITY * world.depth)

    def wave(seconds: float) -> torch.Tensor:
        height = 0.01 * torch.cos(k * (1000 * x - speed * seconds)).expand(world.ny, -1)
        return torch.stack([height, height * GRAVITY / speed, torch.zeros_like(height)])

    end = dynamics.forecast(wave(0.0), world, 12)
    assert (end[:2] - wave(12 * 3600)[:2]).abs().max() < 0.01 * 0.01
    assert end[2].abs().max() < 1e-12


def test_a_standing_wave_between_the_walls_swings_at_its_period():
    world = replace(STILL, ny=32, minutes=10.0)
    _, y = (place.double() for place in dynamics.places(world))
    shape = torch.cos(math.pi * (y / world.width + 0.5))[:, None].expand(-1, world.nx)
    state = torch.stack([0.01 * shape, 0 * shape, 0 * shape])
    period = 2 * 1000 * world.width / math.sqrt(GRAVITY * world.depth) / 3600
    hours = round(6 * period / 2) / 6  # half of it, in steps of ten minutes
    end = dynamics.forecast(state, world, hours)
    expected = math.cos(2 * math.pi * hours / period) * state[0]
    assert (end[0] - expected).abs().max() < 0.01 * 0.01


def test_the_error_falls_with_the_fourth_power_of_the_cell_and_of_the_step():
    # one wave of gravity and rotation: ω² = f² + g H k², in a channel without walls' effect (v = 0 there)
    errors = []
    for nx in (16, 32, 64):
        world = replace(STILL, nx=nx, minutes=5.0)
        x, _ = (place.double() for place in dynamics.places(world))
        k, speed = 2 * math.pi * 2 / (1000 * world.length), math.sqrt(GRAVITY * world.depth)
        start = 1e-4 * torch.cos(k * 1000 * x).expand(world.ny, -1)
        end = dynamics.forecast(torch.stack([start, start * GRAVITY / speed, 0 * start]), world, 24)
        errors.append(float((end[0] - 1e-4 * torch.cos(k * (1000 * x - speed * 86400))).abs().max()))
    assert 12 < errors[0] / errors[1] < 20
    assert 12 < errors[1] / errors[2] < 20
    state, ends = smooth(FREE), []
    for minutes in (40.0, 20.0, 10.0, 2.5):
        ends.append(dynamics.forecast(state, replace(FREE, minutes=minutes), 12))
    missing = [float((end - ends[-1])[1].abs().max()) for end in ends[:-1]]
    assert missing[0] / missing[1] > 12
    assert missing[1] / missing[2] > 12


def test_a_jet_in_geostrophic_balance_stays():
    world = replace(FREE, ny=32, jet_width=1000.0, minutes=15.0)
    start = dynamics.jet(world)
    left = []  # of the pressure against the rotation: the curvature of the profile on the grid, and no more
    for ny in (32, 64):
        finer = replace(world, ny=ny)
        left.append(float(dynamics.tendency(dynamics.jet(finer), finer)[2].abs().max()))
    assert left[0] < 5e-3 * world.coriolis * world.jet
    assert left[1] < left[0] / 10
    assert start[0].mean().abs() < 1e-9
    end = dynamics.forecast(start, world, 48)
    assert (end - start)[1:].abs().max() < 0.01 * world.jet


def test_a_jet_on_its_own_has_no_waves_and_a_stirred_one_makes_weather():
    assert dynamics.forecast(dynamics.jet(FREE), FREE, 24)[2].std(-1).max() < 1e-9  # the same all along the channel
    assert dynamics.forecast(dynamics.stirred(SMALL), SMALL, 24 * 5)[2].std(-1).max() > 5


def test_air_turns_anticlockwise_round_a_low():
    low = torch.zeros(3, 16, 32, dtype=torch.float64)
    x, y = (place.double() for place in dynamics.places(SMALL))
    hole = torch.exp(-((x - 8000) ** 2 + y[:, None] ** 2) / 1200**2)
    dx, dy = SMALL.cell
    low[0] = -100 * hole
    low[1] = -GRAVITY / SMALL.coriolis * torch.gradient(low[0], dim=0)[0] / dy
    low[2] = GRAVITY / SMALL.coriolis * torch.gradient(low[0], dim=1)[0] / dx
    assert dynamics.vorticity(low, SMALL)[8, 16] > 1e-5


# ---- forecasts ----


def test_many_starts_at_once_and_the_states_on_the_way():
    starts = torch.stack([dynamics.stirred(SMALL, seed) for seed in range(3)])
    together = dynamics.forecast(starts, SMALL, 12, every=6)
    assert together.shape == (3, 2, 3, 16, 32)
    alone = dynamics.forecast(starts[1], SMALL, 12)
    assert torch.allclose(together[1, -1], alone, atol=1e-9)
    halfway = dynamics.forecast(starts[1], SMALL, 6)
    assert torch.allclose(dynamics.forecast(halfway, SMALL, 6), alone, atol=1e-9)
    once = dynamics.step(starts, SMALL)
    assert torch.equal(once, dynamics.forecast(starts, SMALL, 0.5))
    assert dynamics.forecast(starts.float(), SMALL, 6).dtype == torch.float32


def test_gradients_pass_through_many_steps():
    start = dynamics.stirred(SMALL).requires_grad_()
    dynamics.forecast(start, SMALL, 2)[0, 8, 8].backward()
    assert torch.isfinite(start.grad).all()
    shift = torch.zeros_like(start)
    shift[0, 8, 9] = 1e-3
    with torch.no_grad():
        moved = dynamics.forecast(start + shift, SMALL, 2) - dynamics.forecast(start - shift, SMALL, 2)
    assert float(moved[0, 8, 8]) / 2e-3 == pytest.approx(float(start.grad[0, 8, 9]), rel=1e-4)


def test_the_same_seed_gives_the_same_start_and_another_another():
    assert torch.equal(dynamics.stirred(SMALL, 1), dynamics.stirred(SMALL, 1))
    assert not torch.equal(dynamics.stirred(SMALL, 1), dynamics.stirred(SMALL, 2))
    assert torch.equal(dynamics.stirred(SMALL, size=0.0), dynamics.jet(SMALL))


# ---- grids and graph ----


def test_the_spectrum_adds_up_and_finds_a_wave():
    x, _ = (place.double() for place in dynamics.places(SMALL))
    field = 2 + 3 * torch.cos(2 * math.pi * 4 * x / SMALL.length).expand(16, -1)
    power = dynamics.spectrum(field)
    assert power.shape == (17,)
    assert power[[0, 4]].tolist() == pytest.approx([4.0, 4.5])
    noise = torch.randn(5, 3, 16, 31, dtype=torch.float64)
    assert torch.allclose(dynamics.spectrum(noise).sum(-1), noise.square().mean((-1, -2)))
    checkerboard = torch.tensor([1.0, -1.0]).repeat(16)[None]
    assert dynamics.spectrum(checkerboard)[-1] == pytest.approx(1.0)


def test_coarse_and_fine_grids():
    wide = replace(SMALL, jet_width=1500.0)
    state = smooth(wide)
    fine = dynamics.refine(state)
    assert fine.shape == (3, 32, 64)
    assert dynamics.coarsen(fine).shape == state.shape
    assert (dynamics.coarsen(fine) - state).abs().max() < 0.02 * state.abs().amax()
    true = smooth(Channel(jet_width=1500.0))
    assert (dynamics.refine(dynamics.coarsen(true)) - true)[:, 2:-2].abs().max() < 0.1 * true[1].abs().max()
    assert torch.allclose(dynamics.refine(torch.ones(3, 8, 8))[:2], torch.ones(2, 16, 16))
    batch = torch.stack([state, 2 * state])
    assert torch.allclose(dynamics.refine(batch)[1], 2 * fine)


def test_nodes_and_edges():
    state = dynamics.stirred(SMALL)
    nodes = dynamics.to_nodes(state)
    assert nodes.shape == (512, 3)
    assert torch.equal(dynamics.to_grid(nodes, SMALL), state)
    assert nodes[33].tolist() == state[:, 1, 1].tolist()
    index, features = dynamics.grid_edges(SMALL)
    assert index.shape == (2, 2 * 512 + 2 * 15 * 32)  # none across the walls
    assert dynamics.grid_edges(SMALL, diagonal=True)[0].shape[1] == index.shape[1] + 4 * 15 * 32
    x, y = dynamics.places(SMALL)
    for (j, i), (distance, east, north) in zip(index.T.tolist()[::97], features.tolist()[::97], strict=True):
        step = (float(x[j % 32] - x[i % 32]) + 8000) % 16000 - 8000
        assert (east * 500, north * 500) == pytest.approx((step, float(y[j // 32] - y[i // 32])))
        assert distance == pytest.approx(math.hypot(east, north))
    out = models.MeshStep(3)(nodes.float()[None, None], (index, features))
    assert out.shape == (1, 1, 512, 3)


def test_the_mountain_stands_where_it_is_put_also_across_the_seam():
    world = replace(SMALL, mountain_position=(0.0, 1000.0))
    ground = dynamics.ground(world)
    x, y = dynamics.places(world)
    row, column = divmod(int(ground.argmax()), 32)
    assert abs(float(y[row]) - 1000) <= 250
    assert column in (0, 31)
    assert torch.allclose(ground[:, 0], ground[:, -1])
    assert ground.max() <= world.mountain


# ---- errors ----


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"nx": 31}, "nx"), ({"ny": 2}, "ny"), ({"nx": 64.0}, "nx"), ({"depth": 0.0}, "depth"),
        ({"depth": math.nan}, "depth"), ({"drag": 0.0}, "drag"), ({"relaxation": -1.0}, "relaxation"),
        ({"diffusion": "fast"}, "diffusion"), ({"mountain": -5.0}, "mountain"), ({"mountain": 3000.0}, "mountain"),
        ({"mountain_position": 3.0}, "mountain_position"), ({"mountain_position": (1.0, math.inf)}, "mountain_pos"),
        ({"jet": math.nan}, "jet"), ({"minutes": 60.0}, "minutes"), ({"minutes": 0.0}, "minutes"),
        ({"diffusion": 0.1}, "minutes"),
    ],
)  # fmt: skip
def test_worlds_that_cannot_be(given, name):
    with pytest.raises(ValueError, match=name):
        Channel(**given)


def test_states_that_do_not_fit():
    state = dynamics.jet(SMALL)
    for wrong, error in ((state.numpy(), TypeError), (state.long(), TypeError), (state[:2], ValueError)):
        for function in (dynamics.tendency, dynamics.step, dynamics.mass, dynamics.energy, dynamics.vorticity):
            with pytest.raises(error, match="state"):
                function(wrong, SMALL)
    with pytest.raises(ValueError, match="world's grid"):
        dynamics.step(state, Channel())
    with pytest.raises(TypeError, match="Channel"):
        dynamics.step(state, {"nx": 32})
    for function in (dynamics.coarsen, dynamics.refine):
        with pytest.raises(TypeError, match="state"):
            function(state.numpy())
    with pytest.raises(ValueError, match="both even"):
        dynamics.coarsen(state[..., 1:])
    with pytest.raises(ValueError, match="ny, nx"):
        dynamics.refine(state[0])
    with pytest.raises(TypeError, match="field"):
        dynamics.spectrum([1.0])
    with pytest.raises(ValueError, match="field"):
        dynamics.spectrum(torch.ones(4))


def test_times_that_are_no_steps_and_a_run_that_breaks():
    state = dynamics.jet(SMALL)
    with pytest.raises(ValueError, match="hours"):
        dynamics.forecast(state, SMALL, 0.7)
    with pytest.raises(ValueError, match="hours"):
        dynamics.forecast(state, SMALL, 0)
    with pytest.raises(ValueError, match="every"):
        dynamics.forecast(state, SMALL, 12, every=5)
    with pytest.raises(FloatingPointError, match="minutes"):
        dynamics.forecast(1e4 * torch.randn_like(state), SMALL, 48)
    with pytest.raises(ValueError, match="size"):
        dynamics.stirred(SMALL, size=-1.0)
    with pytest.raises(ValueError, match="seed"):
        dynamics.stirred(SMALL, seed=-1)
