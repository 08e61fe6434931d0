"""Losses against slow transcriptions of their equations, and where gradients go."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch

from linksim.models.batch import Transmission
from linksim.models.spec import ModelSpec
from linksim.nets.network import side_information
from linksim.schemes.learned import transceiver
from linksim.schemes.semnoma.embedding import orthogonal_symbols
from linksim.schemes.semnoma.losses import affinity, feature_affinity_loss
from linksim.schemes.semnoma.recipe import RECIPES
from linksim.schemes.semnoma.training import taught_losses
from tests.models.build import build, random_pool

KD = ModelSpec("kd", "compact", "rayleigh", Fraction(1, 12))
TEACHER = replace(KD, method="semoma")
SENDS = Transmission(KD, "noma")
RECIPE = replace(RECIPES["paper"], batch=2, cross_layer=4)


def literal_affinity(features: np.ndarray) -> np.ndarray:
    batch, channels, height, width = features.shape
    out = np.zeros((batch, height * width, height * width))
    for b in range(batch):
        columns = features[b].reshape(channels, -1)
        columns = columns / np.sqrt((columns**2).sum(axis=0))
        for i in range(height * width):
            for j in range(height * width):
                out[b, i, j] = (columns[:, i] * columns[:, j]).sum()
    return out


def test_feature_affinity_is_that_of_equations_13_and_14() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 2, 6, 3, 4))
    literal = literal_affinity(student), literal_affinity(teacher)
    np.testing.assert_allclose(affinity(torch.tensor(student)).numpy(), literal[0], rtol=1e-4, atol=1e-6)
    wanted = np.abs(literal[0] - literal[1]).mean()
    loss = feature_affinity_loss(torch.tensor(student), torch.tensor(teacher))
    np.testing.assert_allclose(float(loss), wanted, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = feature_affinity_loss(torch.tensor(student).bfloat16(), torch.tensor(teacher).bfloat16())
    assert inside.dtype == torch.float32
    released = feature_affinity_loss(torch.tensor(student), torch.tensor(teacher), "released")
    np.testing.assert_allclose(float(released), wanted / 256**2, rtol=1e-4)


def losses() -> tuple[dict[str, torch.Tensor], torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(0)
    student, teacher = build(KD), build(TEACHER).eval().requires_grad_(False)
    pool = random_pool()
    student.eval()
    return taught_losses(SENDS, RECIPE, student, teacher, SENDS.draw(RECIPE, pool)), student, teacher


def test_crosskd_is_that_of_equation_15_and_the_total_that_of_equation_17() -> None:
    torch.manual_seed(0)
    student, teacher = build(KD).eval(), build(TEACHER).eval()
    pool = random_pool()
    batch = SENDS.draw(RECIPE, pool)
    with torch.no_grad():
        found = taught_losses(SENDS, RECIPE, student, teacher, batch)
        gamma, h = batch.snr_db, batch.h
        side = torch.stack([(gamma / 20)[:, None].expand(-1, 2), h.abs(), h.angle() / torch.pi], dim=-1)
        sigma = torch.sqrt(10 ** (-gamma / 10))
        sent = student.encode(batch.images, side, (0.5, 0.5))
        heard = (h[..., None] * sent).sum(1) + sigma[:, None] * batch.noise[:, 0]
        taught = teacher.encode(batch.images, side, (1.0, 1.0))
        apart = h[..., None] * taught + sigma[:, None, None] * batch.teacher_noise[:, 0]
        mae = cross = fa = 0.0
        for user in range(2):
            features = student.received_features(heard)[:, user]
            lessons = teacher.received_features(apart)[:, user]
            crossing = student.decoders[user](features, side[:, user], 0, 5)
            mae += (student.decoders[user](features, side[:, user]) - batch.images[:, user]).abs().mean() / 2
            head = teacher.decoders[0](crossing, side[:, user], 5)
            cross += (head - teacher.decoders[0](lessons, side[:, user])).abs().mean() / 2
            fa += feature_affinity_loss(features, lessons, "released") / 2
    for name, value in (("mae", mae), ("crosskd", cross), ("fa", fa)):
        torch.testing.assert_close(found[name], torch.as_tensor(value), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found["total"], 10 * found["mae"] + 100 * found["fa"] + found["crosskd"])
    mean_fa = 256**2 * fa
    for left_out, total in (("fa", 10 * mae + cross), ("crosskd", 10 * mae + 100 * mean_fa)):
        recipe = replace(RECIPE, fa_norm="mean", leave_out=left_out)
        without = taught_losses(SENDS, recipe, student, teacher, batch)
        assert left_out not in without
        torch.testing.assert_close(without["total"], torch.as_tensor(total), rtol=1e-3, atol=1e-6)


def test_gradients_reach_the_whole_student_and_never_the_teacher() -> None:
    found, student, teacher = losses()
    found["total"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    silent = [name for name, parameter in student.named_parameters() if parameter.grad is None]
    assert silent == []


def test_a_student_starts_with_the_teachers_decoder_for_every_user() -> None:
    teacher, student = build(TEACHER), build(KD)
    student.adopt(teacher)
    for decoder in student.decoders:
        for name, value in decoder.state_dict().items():
            torch.testing.assert_close(value, teacher.decoders[0].state_dict()[name])
    for name, value in student.encoder.state_dict().items():
        torch.testing.assert_close(value, teacher.encoder.state_dict()[name])


def test_a_start_from_a_wider_link_keeps_half_of_the_maps_from_each_part() -> None:
    wide, narrow = (build(ModelSpec("semoma", "compact", channel, rho))
                    for channel, rho in (("awgn", Fraction(1, 3)), ("rayleigh", Fraction(1, 6))))  # fmt: skip
    narrow.adopt(wide)
    kept = [*range(8), *range(16, 24)]
    ours, theirs = narrow.encoder.layers[8][1], wide.encoder.layers[8][1]  # type: ignore[index]
    torch.testing.assert_close(ours.weight, theirs.weight[kept])
    before, after = wide.encoder.layers[2].encode_side[0], narrow.encoder.layers[2].encode_side[0]  # type: ignore
    torch.testing.assert_close(after.weight[:, :1], before.weight)
    assert not after.weight[:, 1:].any()


def test_more_users_in_separate_channel_uses_begin_as_good_as_those_that_there_were() -> None:
    spec = ModelSpec("semoma", "compact", "rayleigh", Fraction(1, 12))
    two, four, one = (build(replace(spec, users=users)).eval() for users in (2, 4, 1))
    four.adopt(two)
    one.adopt(four)
    images, side = torch.rand(2, 2, 3, 32, 32), torch.rand(2, 2, 3)
    sent = two.encode(images, side, (1.0, 1.0))
    again = four.encode(images.repeat(1, 2, 1, 1, 1), side.repeat(1, 2, 1), (1.0,) * 4)
    torch.testing.assert_close(again, sent.repeat(1, 2, 1))
    torch.testing.assert_close(one.encode(images[:, :1], side[:, :1], (1.0,)), sent[:, :1])
    torch.testing.assert_close(four.receive(again, side.repeat(1, 2, 1))[:, 2:], two.receive(sent, side))
    # Those that superpose must be told apart.
    student = build(ModelSpec("semnoma", "compact", "rayleigh", Fraction(1, 3), users=4))
    student.embed(four)
    torch.testing.assert_close(student.planes[:2], two.planes)
    assert len({plane.numpy().tobytes() for plane in student.planes.detach()}) == 4
    more = build(ModelSpec("semnoma", "compact", "rayleigh", Fraction(1, 3), users=3))
    more.adopt(student)
    torch.testing.assert_close(more.planes, student.planes[:3])


def test_a_start_from_another_number_of_maps_fits_odd_ones_too() -> None:
    wide, odd = (build(ModelSpec("semoma", "compact", "awgn", rho)) for rho in (Fraction(1, 6), Fraction(5, 96)))
    odd.adopt(wide)
    ours, theirs = odd.encoder.layers[8][1], wide.encoder.layers[8][1]  # type: ignore[index]
    torch.testing.assert_close(ours.weight, theirs.weight[[0, 1, 2, 8, 9]])


def test_crosskd_crosses_over_where_table_iv_says() -> None:
    finetune = RECIPES["finetune"]
    assert [finetune.j(fades, stages) for stages in (2, 4) for fades in (False, True)] == [4, 2, 5, 4]
    assert RECIPE.j(True, 2) == 4


def test_users_that_are_told_of_all_start_as_those_that_are_told_of_themselves() -> None:
    spec = ModelSpec("kd", "compact", "rayleigh", Fraction(1, 6))
    own, everyone = (build(replace(spec, csi=csi)).eval() for csi in ("own", "all"))
    everyone.adopt(own)
    h = torch.randn(2, 2, dtype=torch.complex64)
    images, side = torch.rand(2, 2, 3, 32, 32), side_information(torch.tensor([3.0, 12.0]), h, 5)
    sent = own.encode(images, side[..., :3], (0.5, 0.5))
    torch.testing.assert_close(everyone.encode(images, side, (0.5, 0.5)), sent)
    torch.testing.assert_close(everyone.receive(sent.sum(1), side), own.receive(sent.sum(1), side[..., :3]))
    # So do those in separate channel uses, which have no use for the others' h.
    orthogonal = transceiver(replace(spec, csi="all")).begins_as
    assert orthogonal is not None
    assert orthogonal.name == "semoma_rayleigh_1-12_n2_own_sum_32px_compact"
    source = build(orthogonal.spec).eval()
    everyone.embed(source)
    own.embed(source)
    wanted = orthogonal_symbols(own, source, images, side[..., :3])
    torch.testing.assert_close(orthogonal_symbols(everyone, source, images, side), wanted)
    torch.testing.assert_close(everyone.receive(wanted.sum(1), side), own.receive(wanted.sum(1), side[..., :3]))
    assert [model.name for model in transceiver(replace(spec, csi="all")).parts.values()] == [
        "semoma_rayleigh_1-6_n2_own_sum_32px_compact"
    ]
