"""SemNOMA-DiffBIR end to end on tiny random instances of every part, in the published files' own forms."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import linksim
from linksim.engine.variants import parse
from linksim.errors import LinksimError
from linksim.link.config import LinkConfig, Setting
from linksim.refine.base import silent
from linksim.refine.diffbir.refiner import load_control, recoloured

BLOCKS: dict[str, Any] = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": (2, 4),
    "norm_num_groups": 8, "use_linear_projection": True, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
}  # fmt: skip
LAYERS = BLOCKS["layers_per_block"] + 1
RES = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


def published(name: str) -> str:
    """What DiffBIR's checkpoint calls a tensor of diffusers' ControlNet."""

    def res(old: str, new: str) -> str:
        layer, leaf = old.rsplit(".", 1)
        return f"{new}.{RES[layer]}.{leaf}"

    for pattern, text in (
        (r"conv_in\.(\w+)", r"input_blocks.0.0.\1"),
        (r"time_embedding\.linear_1\.(\w+)", r"time_embed.0.\1"),
        (r"time_embedding\.linear_2\.(\w+)", r"time_embed.2.\1"),
        (r"controlnet_down_blocks\.(\d+)\.(\w+)", r"zero_convs.\1.0.\2"),
        (r"controlnet_mid_block\.(\w+)", r"middle_block_out.0.\1"),
        (r"mid_block\.attentions\.0\.(.+)", r"middle_block.1.\1"),
    ):
        if re.fullmatch(pattern, name):
            return re.sub(pattern, text, name)
    if match := re.fullmatch(r"mid_block\.resnets\.(\d)\.(.+)", name):
        return res(match[2], f"middle_block.{2 * int(match[1])}")
    match = re.fullmatch(r"down_blocks\.(\d)\.(resnets|attentions|downsamplers)\.(\d)\.(.+)", name)
    assert match is not None, name
    first = 1 + int(match[1]) * LAYERS
    if match[2] == "downsamplers":
        return f"input_blocks.{first + LAYERS - 1}.0.op.{match[4].removeprefix('conv.')}"
    entry = f"input_blocks.{first + int(match[3])}"
    return res(match[4], f"{entry}.0") if match[2] == "resnets" else f"{entry}.1.{match[4]}"


def control() -> Any:
    from linksim.refine.diffbir.network import ir_control_net

    torch.manual_seed(1)
    made = ir_control_net({"in_channels": 4, **BLOCKS})
    for value in made.parameters():
        value.data.normal_(0, 0.05)
    return made.eval()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A diffusers folder as of Stable Diffusion 2.1, and IRControlNet's checkpoint."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("diffbir")
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **BLOCKS
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 16), layers_per_block=1, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8, latent_channels=4,
    )  # fmt: skip
    letters = [chr(code) for code in range(97, 123)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
    text = CLIPTextModel(
        CLIPTextConfig(vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                       num_attention_heads=2, max_position_embeddings=16, bos_token_id=52, eos_token_id=53)
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae, text, tokenizer, unet, DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        None, None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder / "base")
    state = {f"control_model.{published(name)}": value for name, value in control().state_dict().items()}
    torch.save({"state_dict": {**state, "model.other": torch.zeros(2)}}, folder / "general_full_v1.ckpt")
    return folder / "base", folder / "general_full_v1.ckpt"


def test_the_published_checkpoint_becomes_the_same_network(parts: tuple[Path, Path], tmp_path: Path) -> None:
    theirs = control()
    alone = tmp_path / "v1_general.pth"
    torch.save({published(name): value for name, value in theirs.state_dict().items()}, alone)
    for path in (parts[1], alone):
        ours = load_control(path, {"in_channels": 4, **BLOCKS})
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_images_go_through_every_part(parts: tuple[Path, Path]) -> None:
    base, checkpoint = parts
    scheme = f"semnoma+diffbir:base={base},control={checkpoint},side=48,steps=4"
    table = linksim.sweep(scheme=scheme, snr="5", groups=2, metrics="psnr", progress=False, out=parts[0].parent / "run")
    assert list(table["stage"]) == ["first", "diffbir"]
    assert table["refine_steps"].iloc[1] == 8
    assert 5 < table["psnr_db"].iloc[1] < table["psnr_db"].iloc[0]


def test_prompt_guidance_and_the_image_itself_change_what_is_drawn(parts: tuple[Path, Path]) -> None:
    from linksim.link.draws import Stream, generator

    base, checkpoint = parts
    setting = Setting(LinkConfig("awgn", 2), (3, 32, 32), Fraction(1, 6))

    def drawn(images: Tensor, **params: object) -> Tensor:
        given = {"base": base, "control": checkpoint, "side": 32, "steps": 2, "colours": "none", **params}
        system = parse("semnoma+diffbir:" + ",".join(f"{key}={value}" for key, value in given.items())).build(setting)
        return system.refiner.refine(images, 0.0, [generator(0, Stream.REFINER, 0, 0)], silent)  # type: ignore[attr-defined]

    images = torch.rand(1, 3, 32, 32)
    plain = drawn(images)
    assert plain.shape == images.shape
    torch.testing.assert_close(drawn(images), plain)
    for other in (drawn(images, guidance=8), drawn(images, prompt="none"), drawn(1 - images)):
        assert (other - plain).abs().max() > 1e-4


def test_captions_come_from_a_model_of_transformers(parts: tuple[Path, Path], tmp_path: Path) -> None:
    from transformers import BertTokenizerFast, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor
    from transformers import BlipProcessor as Processor

    from linksim.refine.diffbir.refiner import _make_captioner

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog"]))
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": 8, "encoder_hidden_size": 16, "bos_token_id": 2, "sep_token_id": 3,
            "eos_token_id": 3, "pad_token_id": 0}  # fmt: skip
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(
        BlipConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 16}, projection_dim=16)
    )
    model.save_pretrained(tmp_path)
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    Processor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(tmp_path)
    captions = _make_captioner(tmp_path, "cpu")(torch.rand(2, 3, 32, 32))
    assert len(captions) == 2
    assert set(" ".join(captions).split()) <= {"a", "cat", "dog"}


def test_missing_and_damaged_parts_are_named_with_the_way_out(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, checkpoint = parts
    setting = Setting(LinkConfig("awgn", 2), (3, 32, 32), Fraction(1, 6))
    monkeypatch.setenv("LINKSIM_ASSETS", str(tmp_path))
    for text, hint in [
        ("semnoma+diffbir", "download the diffusers repository stabilityai/stable-diffusion-2-1-base"),
        (f"semnoma+diffbir:base={base}", r"download https://.*v1_general.pth to "),
        (f"semnoma+diffbir:base={base},control={checkpoint},caption=nowhere", "leave caption out"),
    ]:
        with pytest.raises(LinksimError, match=hint):
            parse(text).build(setting)
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(checkpoint.read_bytes()[:-5000])
    with pytest.raises(LinksimError, match="damaged"):
        load_control(cut, BLOCKS)
    with pytest.raises(LinksimError, match="no IRControlNet"):
        load_control(checkpoint, {"in_channels": 4, **BLOCKS, "block_out_channels": (32, 32)})


def test_recolouring_keeps_details_and_takes_colours() -> None:
    torch.manual_seed(0)
    details, colours = 0.01 * torch.randn(1, 3, 256, 256), torch.full((1, 3, 256, 256), 0.7)
    shown = recoloured(details + 0.2, colours)
    torch.testing.assert_close(shown.mean(), torch.tensor(0.7), atol=2e-3, rtol=0)
    assert torch.corrcoef(torch.stack([shown.flatten(), details.flatten()]))[0, 1] > 0.95
