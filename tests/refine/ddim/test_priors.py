"""Priors from elsewhere compute what their own code computes; what is no prior is refused in one line."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from linksim import assets
from linksim.errors import LinksimError
from linksim.refine.ddim.ddpm import convert_ddpm
from linksim.refine.ddim.openai import convert
from linksim.refine.ddim.priors import PUBLISHED, Checkpoint, find_prior
from linksim.refine.diffusion import make_scheduler
from linksim.refine.files import read_checkpoint
from tests.refine.ddim.ddpm_unet import DdpmUNet
from tests.refine.ddim.openai_unet import UNet

CIFAR: dict[str, Any] = {
    "base": 32, "mult": (1, 2, 2, 2), "blocks": 3, "attention": (2, 4), "heads": "4", "order": "legacy",
    "scale_shift": True, "updown": False, "out": 6,
}  # fmt: skip
SHAPE = (3, 32, 32)


def network(**changes: Any) -> UNet:
    """The network for CIFAR-10 that improved-diffusion published, a quarter as wide, with random weights."""
    torch.manual_seed(0)
    made = UNet(**{**CIFAR, **changes}).eval().requires_grad_(False)
    for value in made.parameters():
        # Published code begins many layers with zeros: random ones show a wrong order of rows.
        value.copy_(torch.randn_like(value) * (0.3 if value.ndim == 1 else value[0].numel() ** -0.5))
    return made


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"out": 3, "scale_shift": False},
        {"heads": "16c", "order": "new", "updown": True, "blocks": 1},
        {"mult": (1, 1, 2, 3), "heads": "32c", "updown": True, "attention": (4, 8), "blocks": 2},
        {"mult": (1, 2), "attention": (), "blocks": 2, "heads": "2"},
        {"heads": "2/4", "blocks": 1},
        {"heads": "32c/16c", "blocks": 1, "order": "new"},
        {"blocks": (1, 3, 2, 1)},
        {"blocks": (2, 1, 3), "mult": (1, 2, 3), "updown": True},
        {"convolve": False, "blocks": 1},
        {"convolve": False, "blocks": (1, 2, 3, 1), "attention": (1, 4)},
    ],
    ids=[
        "cifar10",
        "no learned variance",
        "guided",
        "unequal levels",
        "attention in the middle alone",
        "other heads on the way up",
        "other widths of heads on the way up",
        "other numbers of blocks",
        "other numbers of blocks, guided",
        "no convolution where it resamples",
        "no convolution, other numbers of blocks",
    ],
)
def test_a_converted_checkpoint_computes_what_its_own_network_does(changes: dict[str, Any]) -> None:
    theirs = network(**changes)
    settings = {**CIFAR, **changes}
    ours = convert(theirs.state_dict(), settings["heads"], settings["order"], SHAPE)
    x, times = torch.randn(3, 3, 32, 32), torch.tensor([0, 57, 999])
    told = theirs(x, times)
    assert told.abs().mean() > 0.1
    torch.testing.assert_close(ours(x, times).sample, told, rtol=1e-4, atol=1e-4)


def ddpm(base: int = 32, **changes: Any) -> DdpmUNet:
    """DDPM's network for CIFAR-10, a quarter as wide, with random weights."""
    torch.manual_seed(0)
    settings = {"mult": (1, 2, 2, 2), "blocks": 2, "attention": (1,), **changes}
    made = DdpmUNet(base, **settings).eval().requires_grad_(False)
    for value in made.parameters():
        value.copy_(torch.randn_like(value) * (0.3 if value.ndim == 1 else value[0].numel() ** -0.5))
    return made


@pytest.mark.parametrize(
    "changes", [{}, {"mult": (1, 2), "blocks": 1, "attention": ()}, {"mult": (1, 1, 2), "attention": (0, 2)}]
)
def test_a_checkpoint_of_ddpm_computes_what_its_own_network_does(changes: dict[str, Any]) -> None:
    theirs = ddpm(**changes)
    ours = convert_ddpm(theirs.state_dict(), SHAPE)
    x, times = torch.randn(3, 3, 32, 32), torch.tensor([0, 57, 999])
    told = theirs(x, times)
    assert told.abs().mean() > 0.1
    torch.testing.assert_close(ours(x, times).sample, told, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_that_only_looks_like_ddpms_is_refused(tmp_path: Path) -> None:
    tensors = ddpm().state_dict()
    torch.save({**tensors, "mid.other.weight": torch.ones(1)}, tmp_path / "more.pt")
    torch.save({name: value for name, value in tensors.items() if "conv_out" not in name}, tmp_path / "less.pt")
    for name in ("more", "less"):
        with pytest.raises(LinksimError, match=f"{name}.pt is no UNet of DDPM for 3 channels"):
            find_prior(str(tmp_path / f"{name}.pt"), Checkpoint(), SHAPE)


def test_the_published_priors_have_the_sizes_of_their_papers() -> None:
    """35.7 million parameters (Ho et al. 2020, appendix B); 93.6 million of DPS's file, 374 MB of float32."""
    big = ddpm(128)
    assert sum(value.numel() for value in big.parameters()) == 35_746_307
    faces = UNet(base=128, mult=(1, 1, 2, 2, 4, 4), blocks=1, attention=(16,), heads="64c", order="legacy",
                 scale_shift=True, updown=True, out=6)  # fmt: skip
    # The file holds a name and a header beside each tensor.
    assert 4 * sum(value.numel() for value in faces.parameters()) == pytest.approx(374_417_833, rel=1e-3)
    assert PUBLISHED["ffhq256"].how == Checkpoint(heads="64c")


def test_a_prior_without_a_published_hash_is_held_to_its_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINKSIM_ASSETS", str(tmp_path / "assets"))
    asset = assets.ASSETS["prior-cifar10-50m"]
    assert isinstance(asset, assets.Unhashed)
    with torch.device("meta"):
        tensors = UNet(**{**CIFAR, "base": 128}).state_dict()
    # The 50M of its name.
    assert sum(value.numel() for value in tensors.values()) == pytest.approx(52.5e6, rel=0.01)
    assert asset.tensors == {name: tuple(tensors[name].shape) for name in asset.tensors}
    theirs = network()
    torch.save(theirs.state_dict(), tmp_path / "small.pt")
    with pytest.raises(LinksimError, match=r"is not prior-cifar10-50m: its time_embed.0.weight is \(128, 32\)"):
        assets.get("prior-cifar10-50m", tmp_path / "small.pt")
    (tmp_path / "page.html").write_text("no such file")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    for name in ("page.html", "other.pt"):
        with pytest.raises(LinksimError, match=f"{name} does not hold the tensors of prior-cifar10-50m"):
            assets.get("prior-cifar10-50m", tmp_path / name)
    assert not (tmp_path / "assets").exists()
    shapes = {name: tuple(theirs.state_dict()[name].shape) for name in asset.tensors}
    monkeypatch.setitem(assets.ASSETS, asset.name, dataclasses.replace(asset, tensors=shapes))
    assets.get(asset.name, tmp_path / "small.pt")
    found = find_prior("cifar10-50m", Checkpoint(), SHAPE)
    assert assets.digest(asset.name) == found.sha256 == hashlib.sha256((tmp_path / "small.pt").read_bytes()).hexdigest()
    # Cosine over 4,000 steps, and the network is told thousandths: step 2,000 is its 500.
    x = torch.randn(2, 3, 32, 32)
    told = theirs(x, torch.tensor([500, 500]))[:, :3]
    prior = found.load("cpu", "float32", SHAPE)
    torch.testing.assert_close(prior.predict(x, 2000), told, rtol=1e-3, atol=1e-3)
    # Improved DDPM, eq. 17: half-way little is left of the image.
    kept = make_scheduler(found.schedule).alphas_cumprod
    expected = [math.cos((step / 4000 + 0.008) / 1.008 * math.pi / 2) ** 2 for step in (1, 2000, 3000)]
    assert [float(kept[step - 1]) for step in (1, 2000, 3000)] == pytest.approx(expected, rel=1e-3)


def test_a_published_prior_runs_once_its_asset_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINKSIM_ASSETS", str(tmp_path / "assets"))
    with pytest.raises(LinksimError, match="linksim assets get prior-ddpm-cifar10"):
        find_prior("ddpm-cifar10", Checkpoint(), SHAPE)
    theirs = ddpm()
    torch.save(theirs.state_dict(), tmp_path / "model-790000.ckpt")
    with pytest.raises(LinksimError, match="is not the prior-ddpm-cifar10 that linksim expects"):
        assets.get("prior-ddpm-cifar10", tmp_path / "model-790000.ckpt")
    content = (tmp_path / "model-790000.ckpt").read_bytes()
    asset = dataclasses.replace(assets.ASSETS["prior-ddpm-cifar10"], md5=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(assets.ASSETS, "prior-ddpm-cifar10", asset)
    assets.get("prior-ddpm-cifar10", tmp_path / "model-790000.ckpt")
    found = find_prior("ddpm-cifar10", Checkpoint(), SHAPE)
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    x = torch.randn(2, 3, 32, 32)
    told = theirs(x, torch.tensor([40, 40]))
    shown = found.load("cpu", "float32", SHAPE).predict(x, 40)
    torch.testing.assert_close(shown, told, rtol=0, atol=0.05 * float(told.abs().max()))
    with pytest.raises(LinksimError, match="is for images of 32x32, these are 64x64"):
        find_prior("ddpm-cifar10", Checkpoint(), (3, 64, 64))


def test_a_wrong_number_of_heads_is_another_function() -> None:
    theirs = network()
    x, times = torch.randn(1, 3, 32, 32), torch.tensor([57])
    other = convert(theirs.state_dict(), "2", "legacy", SHAPE)(x, times).sample
    assert (other - theirs(x, times)).abs().max() > 1e-2


def test_a_checkpoint_on_disk_is_found_with_its_process(tmp_path: Path) -> None:
    theirs = network(blocks=1)
    path = tmp_path / "ema_0.9999_500000.pt"
    torch.save({f"module.{name}": value for name, value in theirs.state_dict().items()}, path)
    found = find_prior(str(path), Checkpoint(schedule="cosine"), SHAPE)
    assert found.schedule["beta_schedule"] == "squaredcos_cap_v2"
    prior = found.load("cpu", "float32", SHAPE)
    x = torch.randn(2, 3, 32, 32)
    told = theirs(x, torch.tensor([40, 40]))[:, :3]
    torch.testing.assert_close(prior.predict(x, 40), told, rtol=0, atol=0.05 * float(told.abs().max()))


@pytest.mark.parametrize(
    "wrapper", ["ema", "model_ema", "params_ema", "ema_state_dict", "state_dict", "model", "params"]
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.diffusion_model.", "_orig_mod.module."])
def test_a_state_dict_is_found_under_what_trainers_wrap_it_in(tmp_path: Path, wrapper: str, prefix: str) -> None:
    tensors = {"input_blocks.0.0.weight": torch.ones(2), "out.2.bias": torch.zeros(3)}
    named = {prefix + name: value for name, value in tensors.items()}
    other = {"first_stage_model.decoder.weight": torch.ones(1)} if prefix == "model.diffusion_model." else {}
    torch.save({wrapper: {**named, **other}, "step": 7}, tmp_path / "x.pt")
    found = read_checkpoint(tmp_path / "x.pt")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_averaged_weights_go_before_those_of_the_last_step(tmp_path: Path) -> None:
    torch.save({"model": {"x": torch.zeros(1)}, "ema": {"x": torch.ones(1)}}, tmp_path / "x.pt")
    assert read_checkpoint(tmp_path / "x.pt")["x"].item() == 1


def test_the_state_of_an_optimiser_is_named_as_one(tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW(torch.nn.Linear(2, 2).parameters())
    torch.save(optimizer.state_dict(), tmp_path / "opt500000.pt")
    with pytest.raises(LinksimError, match="state of an optimiser: give the file of the model"):
        read_checkpoint(tmp_path / "opt500000.pt")


def test_what_is_no_prior_is_refused(tmp_path: Path) -> None:
    good = network(blocks=1).state_dict()
    path = tmp_path / "prior.pt"
    torch.save(good, path)
    whole = path.read_bytes()
    for content in (whole[:-2000], b"", b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(LinksimError, match=r"no checkpoint, or a damaged one"):
            find_prior(str(path), Checkpoint(), SHAPE).load("cpu", "float32", SHAPE)
    for state in ({}, {"weight": torch.zeros(2)}, {**good, "label_emb.weight": torch.zeros(10, 128)}):
        with pytest.raises(LinksimError, match="no unconditional UNet"):
            convert(state, "4", "legacy", SHAPE)
    # A level without a block, and ways down and up that are not each other's.
    for entry in ("input_blocks.1.", "output_blocks.0."):
        with pytest.raises(LinksimError, match="no unconditional UNet"):
            convert({name: value for name, value in good.items() if not name.startswith(entry)}, "4", "legacy", SHAPE)
    for heads in ("0", "four", "-4", "7", "33c", "4/7", "4/", "4/8/2"):
        with pytest.raises(LinksimError, match="prior_heads"):
            convert(good, heads, "legacy", SHAPE)
    for name in ("nowhere.pt", "", "x" * 300, "~nobody-at-all/x"):
        with pytest.raises(LinksimError, match="no such file or folder"):
            find_prior(name, Checkpoint(), SHAPE)
    with pytest.raises(LinksimError, match=r"no weights prior_256px_small: .* or give prior=FILE"):
        find_prior("small", Checkpoint(), (3, 256, 256))


def small_unet(**changes: Any) -> Any:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    settings = {"sample_size": 32, "layers_per_block": 1, **changes}
    return UNet2DModel(
        block_out_channels=(32, 32), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        **settings,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("what", "hint"),
    [
        ({"without": "conv_out.weight"}, "do not belong together"),
        ({"settings": {"layers_per_block": 2}}, "do not belong together"),
        ({"unet": {"sample_size": 64}}, "for images of 64, these are 32x32"),
        ({"unet": {"out_channels": 2}}, "does not work"),
        ({"fill": float("nan")}, "not finite"),
        ({"schedule": {"beta_end": 5.0}}, "betas are of no diffusion"),
        ({"schedule": {"num_train_timesteps": 2_000_000_000}}, "are possible"),
        ({"schedule": {"prediction_type": "banana"}}, "does not work"),
        ({"schedule": {"beta_schedule": "banana"}}, "scheduler_config.json"),
        ({"schedule": None}, "with num_train_timesteps"),
    ],
    ids=str,
)
def test_a_folder_whose_files_do_not_belong_together_is_refused_before_anything_runs(
    tmp_path: Path, what: dict[str, Any], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffusers import DDPMScheduler
    from safetensors.torch import load_file, save_file

    small_unet(**what.get("unet", {})).save_pretrained(tmp_path / "unet")
    DDPMScheduler(beta_schedule="linear").save_pretrained(tmp_path / "scheduler")
    weights = next((tmp_path / "unet").glob("*.safetensors"))
    tensors = load_file(weights)
    tensors.pop(what.get("without", ""), None)
    save_file({name: torch.full_like(t, what["fill"]) if "fill" in what else t for name, t in tensors.items()}, weights)
    for file, key in (("unet/config.json", "settings"), ("scheduler/scheduler_config.json", "schedule")):
        changes = what.get(key, {})
        content = json.loads((tmp_path / file).read_text())
        (tmp_path / file).write_text(json.dumps([] if changes is None else {**content, **changes}))
    with pytest.raises(LinksimError, match=hint):
        find_prior(str(tmp_path), Checkpoint(), SHAPE)
    assert not capsys.readouterr().err


def test_a_diffusers_folder_is_a_prior(tmp_path: Path) -> None:
    from diffusers import DDPMScheduler

    theirs = small_unet()
    theirs.save_pretrained(tmp_path / "unet")
    with pytest.raises(LinksimError, match="with num_train_timesteps"):
        find_prior(str(tmp_path), Checkpoint(), SHAPE)
    DDPMScheduler(beta_schedule="linear").save_pretrained(tmp_path / "scheduler")
    found = find_prior(str(tmp_path), Checkpoint(), SHAPE)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        told = theirs(x, torch.tensor([7, 7])).sample
    torch.testing.assert_close(
        found.load("cpu", "float32", SHAPE).predict(x, 7), told, rtol=0, atol=0.05 * float(told.abs().max())
    )
    weights = next((tmp_path / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-5000])
    with pytest.raises(LinksimError, match="does not load"):
        find_prior(str(tmp_path), Checkpoint(), SHAPE).load("cpu", "float32", SHAPE)
    (tmp_path / "unet" / "config.json").write_text("{}")
    with pytest.raises(LinksimError, match="no diffusers folder"):
        find_prior(str(tmp_path), Checkpoint(), SHAPE)
