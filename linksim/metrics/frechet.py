"""FID (Heusel et al. 2017) by torch-fidelity's network and formula, KID (Binkowski et al. 2018) on the same features,
and the features of a reference set on disk."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from linksim import assets
from linksim.cache import array_from_bytes, array_to_bytes, keep_entry, read_entry
from linksim.metrics.base import SetMetric
from linksim.paths import cache_dir
from linksim.source import source_digest

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from linksim.data import ImageSet

_BLOCK = 256


class Fid(SetMetric):
    """Frechet distance between the Inception V3 pool features (2048) of two sets of images.

    torch-fidelity's network takes 8-bit images and resizes them to 299x299 as TensorFlow 1 did. Images are rounded to
    8 bits here (torch-fidelity truncates the output of a generator, which darkens it by half a level).
    """

    name = "fid"
    column = "fid"
    label = "FID"
    digits = 1
    higher_is_better = False
    summary = (
        "Frechet distance of Inception V3 features between received and sent images (needs the asset inception-fid)"
    )
    convention = (
        "FID by torch-fidelity: Inception V3 of 2015-12-05, features 2048, images rounded to 8 bits, "
        "TensorFlow 1 bilinear resize to 299x299, reference set: the sent images"
    )
    asset = "inception-fid"
    features_name = "inception"
    MIN_IMAGES = 1000
    FLAG_BELOW = 2048

    def __init__(self, device: str | torch.device = "cpu") -> None:
        super().__init__(device)
        state = inception_state_dict()
        import torch
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # The network reads its weights from a file of torch's own format only.
        with tempfile.TemporaryDirectory(prefix="linksim-") as folder, torch.random.fork_rng(devices=[]):
            weights = str(Path(folder) / "inception.pth")
            torch.save(state, weights)
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=weights
            )
        # A third faster on a CPU in this layout, the features equal to 1e-5.
        self._network = network.to(device, memory_format=torch.channels_last)
        # 64 feature maps of 147x147 an image: few images at once keep a CPU's memory small at the same speed.
        self._chunk = 16 if torch.device(device).type == "cpu" else 128

    def features(self, images: torch.Tensor) -> NDArray[np.float32]:
        """Features [B, 2048] of images, float32 [B, 3, H, W] in [0, 1]."""
        import torch

        pixels = (images.to(self.device).clamp(0, 1) * 255).round().to(torch.uint8)
        with torch.inference_mode():
            parts = [self._network(part)[0].float().cpu() for part in pixels.split(self._chunk)]
        return torch.cat(parts).numpy()

    def distance(self, reference_features: NDArray[np.float32], features: NDArray[np.float32]) -> float:
        """FID of two sets, from their features [T, D] and [T', D].

        Any number of images is taken here; what counts as enough is `check_count`'s.
        """
        import torch
        from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

        reference, received = (
            fid_features_to_statistics(torch.from_numpy(np.ascontiguousarray(part, np.float32)))
            for part in (reference_features, features)
        )
        return float(fid_statistics_to_metric(reference, received, verbose=False)[KEY_METRIC_FID])

    def identity(self) -> str:
        return f"{Fid.convention}; weights {assets.digest(self.asset)}; torch-fidelity {version('torch-fidelity')}"


class Kid(Fid):
    """Squared maximum mean discrepancy of the same features under the kernel (x.y / 2048 + 1)^3, unbiased.

    The estimate is over all pairs of the two whole sets, not over random subsets: it has no randomness of its own, and
    its expectation does not depend on the number of images. It can be below zero.

    In a sweep no image is compared with its own copy. The two are more alike than images by chance: with them the
    estimate comes out lower, the more so the fewer the images.
    """

    name = "kid"
    column = "kid"
    label = "KID"
    digits = 4
    summary = "kernel distance of Inception V3 features, unbiased on small sets (needs the asset inception-fid)"
    convention = (
        "KID: unbiased squared MMD with the kernel (x.y / 2048 + 1)^3 over the whole sets, features as for FID, "
        "reference set: the sent images, no image compared with its own copy"
    )
    MIN_IMAGES = 50
    FLAG_BELOW = 0
    estimate = "no image compared with its own copy"

    def distance(self, reference_features: NDArray[np.float32], features: NDArray[np.float32]) -> float:
        """KID of two sets, from their features [T, D] and [T', D]."""
        return kernel_distance(reference_features, features)

    def paired_distance(self, reference_features: NDArray[np.float32], features: NDArray[np.float32]) -> float:
        """See `SetMetric`."""
        return kernel_distance(reference_features, features, paired=True)


def kernel_distance(
    reference_features: NDArray[np.float32], features: NDArray[np.float32], paired: bool = False
) -> float:
    """Squared maximum mean discrepancy under the kernel (x.y / D + 1)^3, unbiased (Gretton et al. 2012, section 2.2).

    Args:
        reference_features: of one set, [T, D].
        features: of the other, [T', D].
        paired: image by image the two are one (T = T'), and no image is compared with itself.

    Example:
        >>> features = np.random.default_rng(0).normal(size=(400, 8))
        >>> kernel_distance(features, features + 1) > 10 * abs(kernel_distance(features, features[::-1] + 0.01))
        True
    """
    x, y = np.asarray(reference_features, np.float64), np.asarray(features, np.float64)

    def kernels(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        """Sum over all pairs, a block of rows at a time."""
        blocks = (a[start : start + _BLOCK] for start in range(0, len(a), _BLOCK))
        return float(sum(((block @ b.T / a.shape[1] + 1) ** 3).sum() for block in blocks))

    def own(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float((((a * b).sum(1) / a.shape[1] + 1) ** 3).sum())

    def within(a: NDArray[np.float64]) -> float:
        return (kernels(a, a) - own(a, a)) / (len(a) * (len(a) - 1))

    across = (kernels(x, y) - own(x, y)) / (len(x) * (len(x) - 1)) if paired else kernels(x, y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * across


def inception_state_dict() -> dict[str, torch.Tensor]:
    """The FID network's state under torch-fidelity's names, its classifier zero: FID does not look at it.

    Raises:
        LinksimError: the asset `inception-fid` is not installed, or damaged.
    """
    tensors = assets.load_weights("inception-fid")
    import torch

    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    for name in tensors:
        if name.endswith(".running_mean"):
            state[name.replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
    return state | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}


def reference_features(
    metric: SetMetric,
    data: ImageSet,
    indices: NDArray[np.int64],
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Features [T, D] of a data set's own images, computed once and kept in the cache folder.

    Args:
        metric: whose features; its `identity` and a plug-in's code are part of the cache's key.
        data: the data set, whose fingerprint is part of it too.
        indices: which images [T], in order.
        progress: told the images done and the images in all while the features are computed.
    """
    indices = np.asarray(indices, np.int64).ravel()
    facts = f"{metric.identity()}{source_digest(type(metric))}\n{data.fingerprint}\n"
    key = hashlib.sha256(facts.encode() + indices.astype("<i8").tobytes())
    kept = cache_dir() / "features" / f"{metric.features_name}-{key.hexdigest()}"
    if (known := read_entry(kept)) is not None:
        return array_from_bytes(known)
    import torch

    parts = []
    for start in range(0, len(indices), _BLOCK):
        pixels = data.images[indices[start : start + _BLOCK]]
        parts.append(metric.features(torch.from_numpy(pixels).float() / 255))
        if progress:
            progress(min(start + _BLOCK, len(indices)), len(indices))
    features = np.concatenate(parts)
    keep_entry(kept, array_to_bytes(features))
    return features
