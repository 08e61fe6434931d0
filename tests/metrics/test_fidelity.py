import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from linksim.errors import LinksimError
from linksim.metrics import make_metric, mse, psnr_from_mse, psnr_from_mse_array
from tests.metrics.pictures import noisy, photos, smooth

SHAPES = [(3, 32, 32), (3, 256, 256), (3, 40, 23), (1, 32, 32), (3, 11, 11)]


def _pair(shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    channels, height, width = shape
    reference = photos(4) if shape == (3, 32, 32) else smooth(4, height, width)[:, :channels]
    return reference, noisy(reference)


@pytest.mark.parametrize("shape", SHAPES)
def test_psnr_equals_scikit_images(shape: tuple[int, int, int]) -> None:
    reference, image = _pair(shape)
    expected = [
        peak_signal_noise_ratio(x, y, data_range=1)
        for x, y in zip(reference.double().numpy(), image.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(make_metric("psnr")(reference, image), expected, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_equals_scikit_images_over_the_windows_inside_the_image(shape: tuple[int, int, int]) -> None:
    reference, image = _pair(shape)
    expected = [
        structural_similarity(
            x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=0, data_range=1, full=True
        )[1][:, 5:-5, 5:-5].mean()
        for x, y in zip(reference.double().numpy(), image.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(make_metric("ssim")(reference, image), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("level", [1.0, 0.999, 0.9, 0.5, 0.0])
def test_ssim_of_flat_images_is_that_of_double_precision_and_never_above_1(level: float) -> None:
    draw = np.random.default_rng(0)
    reference = torch.from_numpy((level + 2e-4 * draw.standard_normal((6, 3, 32, 32))).clip(0, 1).astype(np.float32))
    image = torch.from_numpy((level + 2e-4 * draw.standard_normal((6, 3, 32, 32))).clip(0, 1).astype(np.float32))
    image[:2] = reference[:2]
    expected = [
        structural_similarity(
            x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=0, data_range=1, full=True
        )[1][:, 5:-5, 5:-5].mean()
        for x, y in zip(reference.double().numpy(), image.double().numpy(), strict=True)
    ]
    measured = make_metric("ssim")(reference, image)
    np.testing.assert_allclose(measured, expected, atol=1e-6, rtol=0)
    assert float(measured.max()) <= 1


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_ssim_equals_torchmetrics_with_the_border_cut_off(shape: tuple[int, int, int]) -> None:
    # Seconds, which every process of the suite would wait for at the head of this file.
    from torchmetrics.functional.image import structural_similarity_index_measure

    reference, image = _pair(shape)
    _, full = structural_similarity_index_measure(
        image, reference, data_range=1.0, reduction="none", return_full_image=True
    )
    expected = full[..., 5:-5, 5:-5].flatten(1).mean(1)
    torch.testing.assert_close(make_metric("ssim")(reference, image), expected, atol=1e-5, rtol=0)


def test_psnr_and_ssim_equal_tensorflows() -> None:
    tensorflow = pytest.importorskip("tensorflow", reason="the optional extra crosscheck is not installed")
    reference, image = _pair((3, 32, 32))
    x, y = (tensorflow.constant(part.permute(0, 2, 3, 1).numpy()) for part in (reference, image))
    np.testing.assert_allclose(make_metric("psnr")(reference, image), tensorflow.image.psnr(x, y, 1.0), atol=1e-4)
    np.testing.assert_allclose(make_metric("ssim")(reference, image), tensorflow.image.ssim(x, y, 1.0), atol=1e-4)


def test_mse_is_of_each_image() -> None:
    reference, image = _pair((3, 32, 32))
    expected = ((reference - image) ** 2).double().numpy().mean(axis=(1, 2, 3))
    np.testing.assert_allclose(mse(reference, image), expected, rtol=1e-5)


def test_a_perfect_image_has_100_db_and_an_ssim_of_1() -> None:
    reference = photos(2)
    assert make_metric("psnr")(reference, reference).tolist() == [100, 100]
    torch.testing.assert_close(make_metric("ssim")(reference, reference), torch.ones(2))


def test_black_against_white_has_0_db_and_hardly_any_ssim() -> None:
    black, white = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    assert make_metric("psnr")(black, white).item() == 0
    np.testing.assert_allclose(make_metric("ssim")(black, white).item(), 1e-4 / (1 + 1e-4), rtol=1e-3)


def test_psnr_of_an_array_equals_that_of_a_tensor() -> None:
    values = np.array([[0.0, 1e-11], [1e-3, 0.25]])
    np.testing.assert_allclose(psnr_from_mse_array(values), psnr_from_mse(torch.tensor(values)).numpy())
    assert psnr_from_mse_array(values)[1, 0] == pytest.approx(30)


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_an_images_number_does_not_depend_on_its_batch(name: str) -> None:
    reference = photos(8)
    image = noisy(reference)
    metric = make_metric(name)
    alone = torch.cat([metric(reference[i : i + 1], image[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(metric(reference, image), alone, atol=1e-5, rtol=1e-5)


def test_images_too_small_for_ssims_window_are_refused() -> None:
    image = torch.zeros(1, 3, 10, 32)
    with pytest.raises(LinksimError, match=r"ssim needs images of 11x11 or more, these are 32x10"):
        make_metric("ssim")(image, image)


def test_two_shapes_are_an_error_and_never_broadcast() -> None:
    with pytest.raises(LinksimError, match="of one shape"):
        make_metric("psnr")(torch.zeros(4, 3, 32, 32), torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("scale", [255.0, -3.0])
def test_images_of_another_scale_or_type_are_refused(scale: float) -> None:
    image = torch.full((1, 3, 32, 32), scale)
    with pytest.raises(LinksimError, match=rf"psnr of values from {scale:.3g} to .*in \[0, 1\]"):
        make_metric("psnr")(image, image)
    with pytest.raises(LinksimError, match=r"psnr of torch.uint8 \[1, 3, 32, 32\]: give float32"):
        make_metric("psnr")(image.abs().byte(), image.abs().byte())
