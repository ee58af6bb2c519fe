"""The training of the tiny checkpoints: it resumes exactly, and VACE sees in training what it will be given."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import architectures
import check_features
import cv2
import dataset
import loop
import matches
import numpy as np
import pytest
import torch
import train_editor
import train_features
import train_vace
import train_vae
import train_video
from PIL import Image
from torch import nn

from rmkit.kit import models
from rmkit.method import propagation
from rmkit.profile import Profile

MUONS_OWN = torch.optim._muon._zeropower_via_newtonschulz


def test_a_killed_training_ends_like_one_never_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)  # after every step

    def run(folder: Path, killed_at: int | None) -> torch.Tensor:
        torch.manual_seed(0)
        # Muon takes the kernel of the block, AdamW the rest.
        model = nn.ModuleDict({"block": nn.Linear(16, 16), "head": nn.Linear(16, 1)})

        def loss(rng: np.random.Generator, generator: torch.Generator):
            if killed_at is not None and len(seen) == killed_at:
                raise KeyboardInterrupt
            seen.append(1)
            x = torch.randn(8, 16, generator=generator) + float(rng.normal())
            return (model["head"](model["block"](x)) - x.sum(1, keepdim=True)).square().mean(), {}

        seen: list[int] = []
        loop.train(folder, {"model": model}, [loop.Phase("a", 6, 0.1, loss), loop.Phase("b", 4, 0.1, loss)])
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    whole = run(tmp_path / "whole", None)
    for killed_at in (3, 8):
        folder = tmp_path / f"killed{killed_at}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, killed_at)
        assert torch.equal(run(folder, None), whole)


def test_muon_trains_kernels_where_they_lie_and_frozen_modules_stay(tmp_path: Path) -> None:
    model = nn.ModuleDict({"block": nn.Conv2d(16, 16, 3)}).to(memory_format=torch.channels_last)
    kept = nn.Linear(16, 16)
    before = [p.detach().clone() for m in (model, kept) for p in m.parameters()]
    target = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(0))

    def loss(rng: np.random.Generator, generator: torch.Generator):
        return (model["block"].weight - target).square().mean() + kept.weight.square().mean(), {}

    phase = loop.Phase("a", 40, 0.02, loss, frozen=("kept",))
    rows = loop.train(tmp_path, {"model": model, "kept": kept}, [phase])
    after = [p for m in (model, kept) for p in m.parameters()]
    assert not torch.equal(before[0], after[0])
    assert all(torch.equal(a, b) for a, b in zip(before[2:], after[2:], strict=True))
    # Towards the target in each number: columns in another order than the gradient's would not get there.
    assert (after[0] - target).square().mean() < 0.5 * (before[0] - target).square().mean()
    assert len(rows) == 1


@pytest.mark.parametrize("shape", [(24, 60), (60, 24)])
def test_gradients_are_made_orthogonal_as_torch_s_muon_does_it(shape: tuple[int, int]) -> None:
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    settings = (3.4445, -4.775, 2.0315), 5, 1e-7
    ours = loop.orthogonal(gradient, *settings)
    theirs = MUONS_OWN(gradient, *settings).float()
    assert (ours - theirs).norm() < 0.05 * theirs.norm()
    assert torch.linalg.svdvals(ours).min() > 0.5
    assert torch.linalg.svdvals(gradient / gradient.norm()).min() < 0.2


@pytest.mark.parametrize("able", [True, False], ids=["bfloat16", "none"])
def test_muon_computes_in_what_the_processor_can(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", MUONS_OWN)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able})
    seen = []
    monkeypatch.setattr(loop, "orthogonal", lambda *arguments: seen.append(1) or MUONS_OWN(*arguments))
    model = nn.ModuleDict({"block": nn.Linear(20, 20)})
    optimisers = loop.Optimisers({"model": model})
    model["block"](torch.ones(1, 20)).sum().backward()
    before = model["block"].weight.detach().clone()
    optimisers.step(0.01)
    assert bool(seen) != able
    assert not torch.equal(before, model["block"].weight)


def test_later_frames_are_learned_by_the_decoder_on_the_latents_there_were_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    vae = architectures.wan_vae(base_dim=8, decoder_base_dim=8)
    frames = np.random.default_rng(0).integers(255, size=(17, 96, 144, 3), dtype=np.uint8)
    shot = dataset.Shot("s", *[frames] * len(dataset.LOOKS), "", "clear", ((),) * 17)
    loss = train_vae.later_loss(vae, [shot])
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}

    def learned(share: float) -> set[str]:
        """The halves of the VAE that a step teaches; the copy whose latents are to stay is not among them."""
        monkeypatch.setattr(train_vae, "OLD_LATENTS", share)
        vae.zero_grad(set_to_none=True)
        loss(np.random.default_rng(0), torch.Generator().manual_seed(0))[0].backward()
        return {
            name.split(".")[0] for name, p in vae.named_parameters() if p.grad is not None and p.grad.any()
        }

    assert learned(1.0) == {"decoder", "post_quant_conv"}
    assert learned(0.0) == {"encoder", "quant_conv", "decoder", "post_quant_conv"}
    # Once moved away, latents are drawn back.
    with torch.no_grad():
        assert loss(np.random.default_rng(0), torch.Generator().manual_seed(0))[1]["moved"] == 0
        vae.quant_conv.bias += 1
        assert loss(np.random.default_rng(0), torch.Generator().manual_seed(0))[1]["moved"] > 0.5
    assert all(torch.equal(p, before[n]) for n, p in vae.named_parameters() if n != "quant_conv.bias")


def test_a_clips_first_frame_counts_least_and_those_that_end_a_latent_most() -> None:
    weights = train_vae.frame_weights(9)
    assert weights.mean().item() == pytest.approx(1)
    assert weights[0] < weights[1] < weights[4] == weights[8]
    x = torch.zeros(1, 3, 9, 4, 4)
    first, last = x.clone(), x.clone()
    first[:, :, 0], last[:, :, -1] = 0.5, 0.5
    errors = [train_vae.difference(y, x, weights).item() for y in (first, last)]
    assert errors[1] / errors[0] == pytest.approx((weights[8] / weights[0]).item())


def test_anchors_stand_where_the_pipeline_puts_them() -> None:
    ends = dataset.known_frames("ends", 33, np.random.default_rng(0))
    assert np.flatnonzero(ends).tolist() == [0, 32]
    multi = dataset.known_frames("multi", 33, np.random.default_rng(0))
    assert np.flatnonzero(multi).tolist() == [0, 8, 17, 24, 32]  # the mask is sampled at 16
    for seed in range(5):
        known = dataset.known_frames("random", 33, np.random.default_rng(seed))
        assert known.any() and not (known[:-1:2] & known[1::2]).any()
        assert not known[propagation.sampled(33)].any()


@pytest.mark.parametrize("edited", [False, True], ids=["true anchors", "edited anchors"])
def test_vace_is_trained_on_what_the_pipeline_feeds_it(
    tiny_profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: bool
) -> None:
    monkeypatch.setattr(train_vace, "LAYOUTS", {("edges", "ends"): 1.0})
    rng = np.random.default_rng(0)
    # Smooth pictures: the encoder runs in bf16 in training and in fp32 in the pipeline.
    base = rng.integers(40, 200, (3, 5, 1, 1, 3))
    render, truth, depth = (np.broadcast_to(v, (5, 32, 48, 3)).astype(np.uint8) for v in base)
    edges = np.full((5, 32, 48, 3), 255, np.uint8)
    shot = dataset.Shot("s", render, truth, depth, edges, depth[..., :1], depth, "", "clear", ((),) * 5)
    pipeline = models.load_vace(tiny_profile)
    edit = train_vace.Editor(Path(tiny_profile.models.editor)) if edited else None
    clips = train_vace.controlled(pipeline.vae, iter([shot]), tmp_path / "control.safetensors", edit)
    states = clips.states(np.array([0]))

    anchors = {0: truth[0], 8: truth[4]}
    if edit:
        anchors = dict(zip(anchors, edit(render[[0, 4]], 0), strict=True))
        assert not np.array_equal(anchors[0], truth[0])
    frames, mask = propagation.control(dataset.repeated(edges), anchors, [0, 8])
    video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    masks = torch.from_numpy(mask / 255.0).float()[None, None].expand(1, 3, -1, -1, -1)
    with torch.no_grad():
        expected = torch.cat(
            [pipeline.prepare_video_latents(video, masks, [[]]), pipeline.prepare_masks(masks, [[]])], dim=1
        )
    assert states.shape == expected.shape
    assert torch.equal(states[:, -64:].float(), expected[:, -64:])
    difference = (states[:, :-64].float() - expected[:, :-64]).abs().mean()
    assert difference < 0.05 * expected[:, :-64].abs().mean()
    aim = train_vace.encode(pipeline.vae, dataset.repeated(truth)[None])
    torch.testing.assert_close(clips.truth, aim, atol=0.02, rtol=0.02)  # whatever the anchors are


def test_a_channel_counts_by_what_is_seen_of_it(tiny_profile: Profile) -> None:
    vae = models.load_vace(tiny_profile).vae
    with torch.no_grad():
        vae.post_quant_conv.weight[:, 1] = 0  # of this channel nothing is seen
        vae.post_quant_conv.weight[:, 0] *= 3
    clips = np.random.default_rng(0).integers(0, 255, (2, 5, 32, 48, 3), dtype=np.uint8)
    weights = train_video.channel_weights(vae, clips)
    assert weights.shape == (vae.config.z_dim,)
    assert weights.mean().item() == pytest.approx(1)
    assert weights[1] == weights.min() == pytest.approx(train_video.UNSEEN)
    assert weights[0] > 1


class Still(torch.nn.Module):
    """Predicts nothing, so that what is missed is the noise without the clip."""

    def forward(self, hidden_states: torch.Tensor, **_: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=torch.zeros_like(hidden_states))


def test_vace_s_loss_counts_each_channel_by_its_weight() -> None:
    def text(captions: list[str]) -> torch.Tensor:
        return torch.zeros(len(captions), 1, 1)

    truth = torch.zeros(2, 3, 1, 2, 2, dtype=torch.float16)
    truth[:, 2] = 100
    control, mask = torch.zeros(2, 6, 1, 2, 2), torch.ones(2, 1, dtype=torch.bool)
    clips = train_vace.Controlled(truth, control, mask, torch.zeros(2, 2, 1, 2, 2, 2), mask, mask, ["a", "b"])

    def loss(*weights: float) -> float:
        inner = train_vace.objective(
            Still(), [], text, clips, torch.tensor(weights, dtype=torch.float32), 2, "cpu"
        )
        return inner(np.random.default_rng(0), torch.Generator().manual_seed(0))[0].item()

    assert loss(1.5, 1.5, 0) < 10
    assert loss(1, 1, 1) == pytest.approx(100**2 / 3, rel=0.1)
    assert loss(0, 0, 3) == pytest.approx(100**2, rel=0.1)


def test_the_editor_s_loss_counts_each_channel_by_its_weight(tiny_profile: Profile) -> None:
    pipeline = models.load_editor(tiny_profile)
    pipeline.transformer.forward = Still().forward
    renders = [Image.new("RGB", (96, 64))] * 2
    latents = torch.zeros(2, 16, 1, 8, 12)
    latents[:, 2] = 100
    packed = pipeline._pack_latents(latents, 2, 16, 8, 12)
    weights = torch.full((16,), 16 / 15)
    weights[2] = 0

    def loss(weights: torch.Tensor) -> float:
        pairs = {"truth": packed, "render": packed}
        inner = train_editor.objective(pipeline, renders, pairs, weights, tiny_profile, 2)
        return inner(np.random.default_rng(0), torch.Generator().manual_seed(0))[0].item()

    assert loss(weights) < 10
    assert loss(torch.ones(16)) == pytest.approx(100**2 / 16, rel=0.1)


def test_all_looks_of_a_clip_are_mirrored_together() -> None:
    rng = np.random.default_rng(0)
    looks = [rng.integers(0, 255, (2, 4, 6, 3), dtype=np.uint8) for _ in dataset.LOOKS]
    shot = dataset.Shot("s", *looks, "", "clear", (((1.0, 0.0, 3.0, 2.0),), ()))
    turned = dataset.mirrored(shot)
    for name in dataset.LOOKS:
        assert np.array_equal(getattr(turned, name), getattr(shot, name)[:, :, ::-1])
    assert turned.faces == (((3.0, 0.0, 5.0, 2.0),), ())


def test_backwards_the_last_frame_comes_first_in_all_that_is_seen() -> None:
    looks = [np.arange(17, dtype=np.uint8).reshape(17, 1, 1, 1) + start for start in (0, 20, 40, 60, 80, 100)]
    boxes = tuple(((float(i), 0.0, 1.0, 1.0),) for i in range(17))
    turned = dataset.backwards(dataset.Shot("s", *looks, "", "clear", boxes))
    for name, start in zip(dataset.LOOKS, (0, 20, 40, 60, 80, 100), strict=True):
        assert getattr(turned, name)[:, 0, 0, 0].tolist() == [*range(start + 16, start - 1, -1)]
    assert [face[0][0] for face in turned.faces] == [*range(16, -1, -1)]


def test_other_hues_leave_brightness_and_grey_as_they_are() -> None:
    weights = np.array([0.299, 0.587, 0.114])
    frames = np.random.default_rng(0).integers(90, 160, (2, 8, 8, 3), dtype=np.uint8)
    turned = dataset.in_hues(frames, np.pi / 2, 1.0, 1.0)
    assert np.abs(turned @ weights - frames @ weights).max() < 1
    assert np.abs(turned.astype(int) - frames).mean() > 10
    grey = np.full((1, 2, 2, 3), 120, np.uint8)
    assert np.abs(dataset.in_hues(grey, 2.0, 1.1, 1.0).astype(int) - 120).max() <= 1
    assert (dataset.in_hues(grey, 0.0, 1.0, 0.5) > 150).all()


def test_versions_are_the_same_clip_seen_otherwise_and_windows_move_over_all_looks_together() -> None:
    rng = np.random.default_rng(0)
    places = np.broadcast_to(np.arange(96)[:, None] * 144 + np.arange(144), (17, 96, 144))
    depth = np.stack([places // 256, places % 256, np.zeros_like(places)], -1).astype(np.uint8)
    truth = rng.integers(60, 200, (17, 96, 144, 3), dtype=np.uint8)
    objects = np.zeros((17, 96, 144, 1), np.uint8)
    objects[:, :, 70:] = 3
    shot = dataset.Shot("s", truth, truth, depth, depth, objects, depth, "a red car", "clear", ((),) * 17)
    captions, moved = set(), set()
    for seed in range(12):
        varied = dataset.varied(shot, np.random.default_rng(seed))
        captions.add(varied.caption)
        # In other hues the caption would not be true.
        same = np.array_equal(np.sort(varied.truth, None), np.sort(shot.truth, None))
        assert same is (varied.caption == shot.caption)
        seen = dataset.window(shot, np.random.default_rng(seed))
        assert seen.truth.shape == (17, *dataset.WINDOW, 3)
        numbers = seen.depth[..., 0].astype(int) * 256 + seen.depth[..., 1]
        for frame, number in enumerate(numbers[:, 0, 0]):
            y, x = divmod(number, 144)
            assert np.array_equal(seen.truth[frame], truth[frame, y : y + 80, x : x + 128])
        moved.add(int(numbers[-1, 0, 0] - numbers[0, 0, 0]))
    assert captions == {"a red car", ""} and len(moved) > 6


def test_objects_are_given_colours_of_their_own_which_they_keep() -> None:
    truth = np.full((3, 8, 12, 3), (60, 120, 180), np.uint8)
    objects = np.zeros((3, 8, 12, 1), np.uint8)
    for frame in range(3):
        objects[frame, :, 4 + frame : 8 + frame] = 7
    shot = dataset.Shot("s", truth, truth, truth, truth, objects, truth, "", "clear", ((),) * 3)
    counts = set()
    for seed in range(20):
        varied = dataset.varied(shot, np.random.default_rng(seed))
        colours = [np.unique(varied.truth[varied.objects[..., 0] == n], axis=0) for n in (0, 7)]
        assert [len(c) for c in colours] == [1, 1]  # in all frames, wherever it has gone
        counts.add(len(np.unique(np.concatenate(colours), axis=0)))
    assert counts == {1, 2}


def test_what_is_near_in_one_clip_stands_before_another() -> None:
    def flat(value: int, depth: np.ndarray) -> dataset.Shot:
        looks = [np.full((2, 8, 12, 3), value + n, np.uint8) for n in range(2)]
        looks += [depth, np.full_like(depth, 255), np.full((2, 8, 12, 1), value, np.uint8)]
        looks += [np.full((2, 8, 12, 3), value, np.float32)]
        return dataset.Shot("s", *looks, "a caption", "clear", ((),) * 2)

    near = np.zeros((2, 8, 12, 3), np.uint8)
    near[:, :, :4] = 255
    seen = dataset.in_front_of(flat(40, near), flat(200, np.zeros_like(near)))
    assert (seen.render[:, :, :4] == 40).all() and (seen.render[:, :, 4:] == 200).all()
    assert (seen.truth[:, :, :4] == 41).all() and (seen.truth[:, :, 4:] == 201).all()
    assert np.array_equal(seen.depth, near) and seen.caption == ""
    # Numbered apart, or its first person would be the other clip's first object.
    assert seen.objects.shape == (2, 8, 12, 1)
    assert set(seen.objects[:, :, :4].flat) == {40 + dataset.OTHERS}
    assert set(seen.objects[:, :, 4:].flat) == {200}
    assert set(seen.surface[:, :, :4].flat) == {40 + dataset.FAR}
    assert set(seen.surface[:, :, 4:].flat) == {200}
    # The outline is where one ends before the other, and nowhere else.
    assert (seen.edges[:, :, 3:5] < 128).all() and (seen.edges[:, :, [0, 1, 6, 7]] == 255).all()


def test_what_drifts_moves_in_all_that_is_seen_and_leaves_nothing_behind() -> None:
    places = np.broadcast_to(1 + np.arange(96)[:, None] * 144 + np.arange(144), (17, 96, 144))
    coded = np.stack([places // 256, places % 256, np.zeros_like(places)], -1).astype(np.uint8)
    shot = dataset.Shot("s", coded, coded, coded, coded, coded[..., 1:2], coded, "", "clear", ((),) * 17)
    speeds = set()
    for seed in range(8):
        seen = dataset.adrift(shot, np.random.default_rng(seed))
        numbers = seen.truth[..., 0].astype(int) * 256 + seen.truth[..., 1]
        corners = []
        for frame, number in enumerate(numbers):
            ys, xs = np.nonzero(number)
            if not len(ys):
                continue
            there = (slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1))
            y, x = divmod(int(number[there][0, 0]) - 1, 144)
            height, width = number[there].shape
            assert np.array_equal(number[there], places[0][y : y + height, x : x + width])
            assert len(ys) == height * width == (96 - abs(ys.min() - y)) * (144 - abs(xs.min() - x))
            corners.append((frame, xs.min() - x))
        assert np.array_equal(seen.objects[..., 0], seen.render[..., 1])
        assert min(abs(corners[0][1]), abs(corners[-1][1])) <= 36  # mostly seen at one end
        speeds.add(round((corners[-1][1] - corners[0][1]) / (corners[-1][0] - corners[0][0])))
    assert len(speeds) > 3


def test_an_enlarged_clip_is_larger_in_all_that_is_seen_and_its_outlines_are_drawn_anew() -> None:
    render = np.full((2, 40, 60, 3), 40, np.uint8)
    render[:, :, 30:] = 200
    looks = [render, render, render, np.zeros_like(render), render[..., :1], render.astype(np.float32)]
    seen = dataset.enlarged(dataset.Shot("s", *looks, "", "clear", ((),) * 2), 1.5)
    for name in dataset.LOOKS:
        assert getattr(seen, name).shape[:3] == (2, 60, 90)
    assert set(seen.objects.flat) == set(seen.surface.flat) == {40, 200}  # no mixtures of two
    assert np.array_equal(seen.edges, dataset.structure.edges(seen.render, dataset.STRUCTURE))
    assert (seen.edges[:, :, 40:50].min((1, 2, 3)) < 128).all() and (seen.edges[:, :, :38] == 255).all()


def test_what_is_seen_is_followed_to_both_ends_and_lost_where_it_leaves() -> None:
    rows, columns = np.mgrid[:96, :160]
    wall = np.stack([0.1 * columns, 0.1 * rows, np.full((96, 160), 500)], -1).astype(np.float32)  # metres
    pan = np.stack([wall[16:80, 2 * n : 2 * n + 96] for n in range(17)])  # 2 pixels to the left a frame
    places = matches.where_from(pan).astype(np.float32)
    assert places.shape == (2, 9, 8, 12, 2)
    turned = pan.copy()
    turned[-1] += 40  # other parts, all of them
    turned[3, :32] = 0  # sky
    assert (matches.where_from(turned)[1, :8] == matches.NOWHERE).all()
    assert (matches.where_from(turned)[0, 2, :4] == matches.NOWHERE).all()
    turned[0] = 0
    assert (matches.where_from(turned)[0] == matches.NOWHERE).all()
    own = np.stack(np.mgrid[:8, :12], -1)
    for latent, frame in ((0, 0), (3, 5), (8, 15)):
        for end, moved in ((0, 2 * frame / 8), (1, -2 * (16 - frame) / 8)):
            expected = own + np.array([0, moved])
            there = (expected[..., 1] > -0.5) & (expected[..., 1] < 11.5)
            found = places[end, latent]
            assert np.abs(found - expected)[there].max() < 0.01
            assert (found[(expected[..., 1] < -0.7) | (expected[..., 1] > 11.7)] == matches.NOWHERE).all()


def test_told_attention_is_the_models_own_and_lower_where_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = architectures.vace_transformer(num_layers=2, vace_layers=[0, 1], vace_in_channels=160)
    told = matches.Told(model.vace_blocks[1].attn1)
    asked = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def listening(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any
    ) -> torch.Tensor:
        if query.shape[-2] == key.shape[-2]:
            asked.append(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5)
        return fused(query, key, value, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", listening)
    places = torch.full((1, 2, 3, 4, 6, 2), matches.NOWHERE)
    places[0, 1, 1, 2, 3] = torch.tensor([1.25, 4.0])  # one latent is known to go there in the last frame
    with torch.no_grad():
        model(
            hidden_states=torch.randn(1, 48, 3, 4, 6),
            timestep=torch.tensor([900.0]),
            encoder_hidden_states=torch.randn(1, 4, 96),
            control_hidden_states=torch.randn(1, 160, 3, 4, 6),
        )
        own, ends = torch.zeros(1, 3, 4, 6, dtype=torch.uint8), torch.full((1, 2, 4, 6), matches.EVERYTHING)
        loss = told.loss(places, own, ends)
        ends[:, 0] = 2  # in the first frame there is number one only, which nothing is of
        more = told.loss(places, own, ends)
        ends[:, 0] = 1  # there is more of what everything is of
        guessing = told.loss(places, own, ends)
    chances = asked[1][0, 1].log_softmax(-1)[24 + 2 * 6 + 3, 48:].reshape(4, 6)  # of VACE's second block
    assert torch.allclose(loss, -(0.75 * chances[1, 4] + 0.25 * chances[2, 4]), atol=1e-4)
    astray = asked[1][0, 0].softmax(-1)[:, :24].sum(-1)
    assert torch.allclose(more - loss, -(1 - astray).log().sum() / (2 * 72 - 1), atol=1e-4)
    guessed = torch.arange(72) != 24 + 2 * 6 + 3  # but for the one that is known to be in the last frame
    assert torch.allclose(guessing - loss, -astray[guessed].log().mean(), atol=1e-4)


def test_told_attention_learns_from_ends_that_show_nothing_of_a_latents_object() -> None:
    model = architectures.vace_transformer(num_layers=2, vace_layers=[0, 1], vace_in_channels=160)
    told = matches.Told(model.vace_blocks[1].attn1)
    model(
        hidden_states=torch.randn(1, 48, 3, 4, 6),
        timestep=torch.tensor([900.0]),
        encoder_hidden_states=torch.randn(1, 4, 96),
        control_hidden_states=torch.randn(1, 160, 3, 4, 6),
    )
    own = (torch.arange(72) % 3).reshape(1, 3, 4, 6).to(torch.uint8)
    told.loss(
        torch.full((1, 2, 3, 4, 6, 2), matches.NOWHERE), own, torch.full((1, 2, 4, 6), 0b110)
    ).backward()
    gradient = model.vace_blocks[1].attn1.to_q.weight.grad
    assert gradient.isfinite().all() and gradient.any()


def test_what_an_end_shows_is_known_by_latent() -> None:
    objects = np.full((5, 16, 24, 1), 3, np.uint8)
    objects[0, 8:, 16:] = 70  # bit 7
    objects[-1, 7:9, 7] = 5
    objects[3, 4, 12] = 9
    own, ends = matches.contents(objects)
    assert own.tolist() == [[[3, 3, 3], [3, 3, 7]], [[3, 3, 3]] * 2, [[3, 9, 3], [3, 3, 3]]]
    assert ends[0].tolist() == [[8, 8, 8], [8, 8, 128]]
    assert ends[1].tolist() == [[8 | 32, 8, 8], [8 | 32, 8, 8]]


def test_attention_written_out_is_attention() -> None:
    query, key, value = (torch.randn(2, 3, length, 8) for length in (7, 5, 5))
    fused = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    assert torch.allclose(train_video.attention(query, key, value), fused, atol=1e-6)
    # UMT5 hands its position bias over as a mask: nothing that is asked for may be passed over.
    bias = torch.randn(1, 3, 7, 5)
    for more in ({"attn_mask": bias}, {"scale": 1.0}, {"is_causal": True}):
        fused = torch.nn.functional.scaled_dot_product_attention(query, key, value, **more)
        assert torch.equal(train_video.attention(query, key, value, **more), fused)


def test_a_slowed_clip_shows_a_few_neighbouring_frames_for_its_whole_length() -> None:
    looks = [np.arange(17, dtype=np.uint8).reshape(17, 1, 1, 1) + start for start in (0, 20, 40, 60, 80, 100)]
    boxes = tuple(((float(i), 0.0, 1.0, 1.0),) for i in range(17))
    shot = dataset.Shot("s", *looks, "", "clear", boxes)
    counts = set()
    for seed in range(40):
        slowed = dataset.slowed(shot, np.random.default_rng(seed))
        shown = slowed.render[:, 0, 0, 0]
        assert len(shown) == 17 and set(np.diff(shown)) <= {0, 1}
        assert (slowed.truth[:, 0, 0, 0] == shown + 20).all() and (
            slowed.edges[:, 0, 0, 0] == shown + 60
        ).all()
        assert [face[0][0] for face in slowed.faces] == shown.tolist()
        counts.add(len(set(shown.tolist())))
    assert counts == {1, 2, 3, 5}


def test_stills_are_three_frames_of_all_that_is_seen_of_a_clip() -> None:
    numbers = np.arange(17, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 1), np.uint8)
    shot = dataset.Shot("s", *[numbers] * 6, "a clip", "clear", tuple(((n, 0, 0, 0),) for n in range(17)))
    stills = dataset.stills(shot)
    assert [still.truth.shape for still in stills] == [(1, 4, 6, 1)] * 3
    for frame, still in zip((0, 8, 16), stills, strict=True):
        assert all((getattr(still, look) == frame).all() for look in dataset.LOOKS)
        assert still.faces == (((frame, 0, 0, 0),),) and still.caption == "a clip"


def test_experts_are_shown_the_same_clip_in_other_colours(tiny_profile: Profile, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(60, 180, (5, 32, 48, 3), dtype=np.uint8)
    first, second = (train_video.recoloured(truth, rng, "low") for _ in range(2))
    assert first.shape == truth.shape and first.dtype == np.uint8
    assert np.abs(first.astype(int) - second).mean() > 5  # each call its own colours
    still = train_video.recoloured(np.repeat(truth[:1], 5, axis=0), rng, "low")
    assert (still == still[:1]).all()  # and the same ones in all frames
    flat = np.full((1, 32, 48, 3), 90, np.uint8)
    shifts = {
        stage: [abs(train_video.recoloured(flat, rng, stage).mean() - 90) for _ in range(20)]
        for stage in ("high", "low")
    }
    # The low-noise expert is to take the other's colours.
    assert max(shifts["high"]) < 12 < max(shifts["low"])

    pipeline = models.load_wan(tiny_profile)
    shot = dataset.Shot("street_00600", *[truth] * 6, "", "clear", ((),) * 5)
    reference = train_video.reference_latents(pipeline.vae, [shot], tmp_path / "reference", "low")
    target = train_video.truth_latents(pipeline.vae, [shot], tmp_path / "truth")
    assert reference.shape == target.shape
    assert [p.name for p in (tmp_path / "truth").iterdir()] == ["00600.safetensors"]  # a file a scene

    told: list[list[str]] = []

    def text(captions: list[str]) -> torch.Tensor:
        told.append(captions)
        return torch.zeros(len(captions), 4, pipeline.text_encoder.config.d_model)

    model = pipeline.transformer.float()
    clips = train_video.Captioned(target, ["a clip"])
    pictures = train_video.Captioned(target[:, :, :1], ["a picture"])
    loss = train_video.objective(model, text, clips, reference, pictures, "low", 2, "cpu")
    seen = [loss(np.random.default_rng(seed), torch.Generator().manual_seed(0))[1] for seed in range(16)]
    kinds = [next(iter({"alone", "pictures", "shown"} & set(figures))) for figures in seen]
    assert set(kinds) == {"alone", "pictures", "shown"}
    counts = {"alone": 2, "pictures": 2 * train_video.PICTURES, "shown": 1}
    for kind, captions in zip(kinds, told, strict=True):
        assert len(captions) == counts[kind]
        assert set(captions) <= {"", "a picture" if kind == "pictures" else "a clip"}


def test_hard_steps_and_flat_light() -> None:
    ramp = np.repeat(np.linspace(0, 200, 48, dtype=np.float32)[None, :, None], 32, axis=0).repeat(3, axis=2)
    edge = cv2.GaussianBlur(np.where(np.arange(48) < 24, 40.0, 200.0).astype(np.float32)[None], (0, 0), 1.0)
    edge = edge.repeat(32, axis=0)[..., None].repeat(3, axis=2)
    steps = np.abs(np.diff(train_video.aliased(edge)[16, :, 0]))
    assert steps.max() > 1.5 * np.abs(np.diff(edge[16, :, 0])).max()  # what was soft is a step
    flat = train_video.flattened(ramp, 0.8, 8.0)
    assert np.ptp(flat.mean(axis=(0, 2))) < 0.75 * np.ptp(ramp.mean(axis=(0, 2)))
    clip = np.random.default_rng(0).integers(60, 180, (1, 32, 48, 3), dtype=np.uint8).repeat(3, axis=0)
    seen = train_video.spoilt(clip, np.random.default_rng(1), "low")
    assert seen.shape == clip.shape and (seen == seen[:1]).all()  # the same in all frames


def test_a_clip_in_bad_weather_is_mostly_shown_in_clear_weather() -> None:
    frames = np.zeros((1, 2, 2, 3), np.uint8)

    def shot(number: int, first_frame: int) -> dataset.Shot:
        return dataset.Shot(f"road_{number:05d}", *[frames] * 6, "", "", ((),), first_frame)

    shots = [shot(n, f) for n in (601, 2005, 2007, 2012) for f in (0, 17)]
    # 2012 has no clear sibling among them; what is not of the scenes in all weathers stands for itself.
    assert dataset.in_clear(shots) == [0, 1, 2, 3, 2, 3, 6, 7]
    assert [dataset.scene(s) for s in shots[::2]] == [601, 2005, 2005, 2010]


def test_latents_are_made_again_for_another_vae_and_other_clips(tmp_path: Path) -> None:
    vae, clip = nn.Linear(2, 2), np.zeros((1, 2, 2, 3), np.uint8)
    made: list[int] = []

    def compute() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"latents": torch.full((2,), float(len(made)))}

    def latents(picture: np.ndarray) -> float:
        found = train_video.cached(tmp_path / "latents.safetensors", vae, [picture], compute)
        return found["latents"][0].item()

    assert (latents(clip), latents(clip)) == (1, 1)
    assert latents(clip + 1) == 2
    nn.init.zeros_(vae.weight)
    assert (latents(clip + 1), latents(clip + 1)) == (3, 3)


def test_tokens_are_narrower_than_the_transformer() -> None:
    # A velocity holds the noise of all channels: a narrower stream could not carry it, and it would stay.
    width = architectures.HEADS * architectures.HEAD_WIDTH
    assert 4 * architectures.LATENT_CHANNELS < width
    # VACE's stream also holds what it makes of its control: anchors and structure, each as much again.
    assert 3 * architectures.LATENT_CHANNELS * np.prod(architectures.VACE_PATCH) < width


def test_vace_starts_as_the_expert_at_finer_tokens_and_learns_with_all_its_weights() -> None:
    torch.manual_seed(0)
    small = {"num_layers": 2, "in_channels": 4, "out_channels": 4}
    expert = architectures.wan_transformer(**small)
    vace = architectures.vace_transformer(**small, vace_layers=[0, 1])
    train_vace.take_over(vace, expert.state_dict())
    for block in vace.vace_blocks:
        nn.init.zeros_(block.proj_out.weight)
        nn.init.zeros_(block.proj_out.bias)
    # Attention over the latents of one patch that are all alike is what it is over the patch alone.
    patch = torch.randn(2, 4, 1, 1, 1).expand(-1, -1, -1, 2, 2)
    call = {
        "hidden_states": patch,
        "encoder_hidden_states": torch.randn(2, 5, architectures.TEXT_WIDTH),
        "timestep": torch.tensor([900.0, 200.0]),
    }
    control = torch.randn(2, 72, 1, 2, 2)
    with torch.no_grad():
        said = expert(**call).sample.mean((3, 4), keepdim=True).expand_as(patch)
        assert torch.allclose(vace(**call, control_hidden_states=control).sample, said, atol=1e-5)
    optimiser = torch.optim.AdamW(vace.parameters(), lr=1e-3)
    for _ in range(2):
        optimiser.zero_grad()
        vace(**call, control_hidden_states=control).sample.square().mean().backward()
        optimiser.step()
    unused = [
        name for name, weight in vace.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    assert not unused
    with pytest.raises(ValueError, match="no room"):
        train_vace.take_over(
            architectures.vace_transformer(**small, vace_layers=[0], ffn_dim=32), expert.state_dict()
        )


def test_vace_of_other_tokens_is_begun_anew_from_its_checkpoints_expert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"num_layers": 1, "in_channels": 4, "out_channels": 4}
    expert = tmp_path / "wan" / "transformer_2"
    architectures.wan_transformer(**small).save_pretrained(expert, safe_serialization=True)
    for patch, anew in (((1, 2, 2), True), (architectures.VACE_PATCH, False)):
        trained = architectures.vace_transformer(**small, vace_layers=[0], patch_size=patch)
        architectures.save_vace(tmp_path / "vace", trained)
        monkeypatch.setattr(
            architectures,
            "vace_transformer",
            lambda made=architectures.vace_transformer: made(**small, vace_layers=[0]),
        )
        found, begun = train_vace.start(tmp_path / "out", tmp_path)
        monkeypatch.undo()
        assert begun is anew
        key = "blocks.0.attn1.to_q.weight"
        kept = torch.equal(found.state_dict()[key], trained.state_dict()[key].float())
        assert kept is not anew


def test_a_crop_is_the_same_window_of_clip_and_control() -> None:
    shape = torch.Size((3, 2, 1, 6, 9))
    places = torch.arange(54.0).reshape(6, 9).expand(shape)
    corners = set()
    for seed in range(20):
        window = train_vace.cropping(np.random.default_rng(seed), shape[-2:], 3, (3, 4))
        seen = window(places)
        assert seen.shape == (3, 2, 1, 3, 4)
        assert torch.equal(window(places[:, :1] + 100), seen[:, :1] + 100)
        assert torch.equal(seen[:, 0, 0] - seen[:, 0, 0, :1, :1], places[:, 0, 0, :3, :4])
        corners |= set(seen[:, 0, 0, 0, 0].tolist())
    assert len(corners) > 15  # of 24
    assert train_vace.cropping(np.random.default_rng(0), shape[-2:], 3, None)(places) is places


def test_the_feature_models_teacher_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    rng = np.random.default_rng(0)
    looks = [tuple(rng.integers(0, 256, (2, 96, 144, 3), dtype=np.uint8) for _ in range(2)) for _ in range(2)]

    def run(folder: Path, killed_at: int | None) -> train_features.Teacher:
        torch.manual_seed(0)
        small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        vit = architectures.features(**small).to(memory_format=torch.channels_last)
        student = nn.ModuleDict({"blocks": vit, "head": train_features.Head(width=32)})
        teacher = train_features.Teacher(student, 4)
        inner = train_features.objective(student, teacher, looks, 2)

        def loss(rng: np.random.Generator, generator: torch.Generator):
            if teacher.step.item() == killed_at:
                raise KeyboardInterrupt
            return inner(rng, generator)

        loop.train(folder, {"student": student, "teacher": teacher}, [loop.Phase("a", 4, 1e-2, loss)])
        return teacher

    whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", 2)
    resumed = run(tmp_path / "killed", None)
    assert resumed.step.item() == 4 and resumed.centre.abs().sum() > 0
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_crops_of_a_frame_are_of_both_looks_and_mirrored_together() -> None:
    # Left dark, right bright; render red, truth blue.
    ramp = np.tile(np.linspace(0, 255, 144).astype(np.uint8), (1, 96, 1))
    render, truth = (np.stack([ramp * (c == k) for c in range(3)], axis=-1) for k in (0, 2))
    for seed in range(6):
        large, small = train_features.sample([(render, truth)], 1, np.random.default_rng(seed))
        assert large.shape == (2, 3, 64, 96) and small.shape == (train_features.LOCALS, 3, 32, 48)
        assert sorted(int(crop.float().mean((1, 2)).argmax()) for crop in large) == [0, 2]
        rises = {bool(crop.sum(0)[:, -1].sum() > crop.sum(0)[:, 0].sum()) for crop in (*large, *small)}
        assert len(rises) == 1


def test_retrieval_counts_other_sequences_only() -> None:
    between = np.array([[2.0, 1.0, 3.0], [1.0, 2.0, 3.0], [1.0, 9.0, 2.0]])
    assert check_features.retrieval(between, np.array(["a", "a", "b"])) == pytest.approx(2 / 3)
